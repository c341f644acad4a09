"""Networks go from PyTorch to the crate and back and compute the same in both.

    pip install torch numpy safetensors
    python tests/pytorch_exchange.py               # both ways, in a temporary folder
    python tests/pytorch_exchange.py --fixtures    # writes tests/fixtures anew

PyTorch trains each network a little, so that nothing is where it started, and saves its
`state_dict` and what it answers to some inputs. `tests/pytorch_exchange.rs` loads that into its own
list of the same layers, compares the answers, trains on and saves; PyTorch loads what it saved,
with `strict=True`, and compares again. The fixtures are the first half, kept so that
`cargo test` needs no Python.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"

# What rounding may change, relative to the largest answer.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}


def dense():
    """Every function of one number that both sides have."""
    return nn.Sequential(
        nn.Dropout(0.1),
        nn.Linear(5, 7),
        nn.Tanh(),
        nn.Linear(7, 6, bias=False),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.3),
        nn.Linear(6, 6),
        nn.BatchNorm1d(6, eps=1e-3, momentum=0.3),
        nn.ReLU(),
        nn.Linear(6, 5),
        nn.Sigmoid(),
        nn.Linear(5, 5),
        nn.Identity(),
        nn.Linear(5, 3),
    )


def convolutional():
    """Nothing is square; pixels are normalised by channel before `Flatten`, one by one after it."""
    return nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0)),
        nn.BatchNorm2d(3),
        nn.ELU(0.7),
        nn.MaxPool2d((2, 3), stride=(1, 2)),
        nn.Dropout(0.2),
        nn.Conv2d(3, 4, 2, bias=False),
        nn.Softplus(),
        nn.AvgPool2d(2, stride=1),
        nn.Flatten(),
        nn.BatchNorm1d(8),
        nn.Linear(8, 6),
        nn.Tanh(),
        nn.Linear(6, 3),
    )


# Name, network, shape of one input.
NETWORKS = [("dense", dense, (5,)), ("convolutional", convolutional, (2, 9, 8))]
TYPES = [("f32", torch.float32), ("f64", torch.float64)]


def cases():
    for name, make, shape in NETWORKS:
        for suffix, dtype in TYPES:
            torch.manual_seed(1)
            yield f"{name}-{suffix}", make().to(dtype), (8, *shape), dtype


def write(folder):
    """Trains every network and saves it with inputs and answers, a row for each sample."""
    for name, model, shape, dtype in cases():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model.train()
        for _ in range(3):
            loss = nn.functional.cross_entropy(model(torch.randn(shape, dtype=dtype)), torch.arange(8) % 3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        x = torch.randn(shape, dtype=dtype)
        with torch.no_grad():
            answers = {"input": x.flatten(1).contiguous(), "output": model(x)}
        save_file(model.state_dict(), folder / f"{name}.safetensors")
        save_file(answers, folder / f"{name}.answers.safetensors")


def read(folder):
    """Loads what the crate saved and compares its answers with PyTorch's."""
    for name, model, shape, dtype in cases():
        state = load_file(folder / f"{name}.ours.safetensors")
        model.load_state_dict(state, strict=True)
        model.eval()
        answers = load_file(folder / f"{name}.ours.answers.safetensors")
        with torch.no_grad():
            found = model(answers["input"].reshape(-1, *shape[1:]))
        expected = answers["output"]
        assert found.dtype == expected.dtype == dtype
        error = ((found - expected).abs().max() / expected.abs().max()).item()
        assert error <= TOLERANCE[dtype], f"{name}: {error}"
        before = load_file(folder / f"{name}.safetensors")
        moved = [key for key in state if not torch.equal(state[key], before[key])]
        assert moved == list(state), f"{name}: {set(state) - set(moved)} did not learn"
        print(f"{name}: {len(state)} tensors, relative error {error:.1e}")


def main():
    print(
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"safetensors {safetensors.__version__}"
    )
    if sys.argv[1:] == ["--fixtures"]:
        FIXTURES.mkdir(exist_ok=True)
        write(FIXTURES)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        command = ["cargo", "test", "--test", "pytorch_exchange", "--", "--ignored", "--nocapture"]
        variables = {**os.environ, "PYTORCH_EXCHANGE": folder}
        subprocess.run(command, cwd=ROOT, env=variables, check=True)
        read(Path(folder))


if __name__ == "__main__":
    main()
