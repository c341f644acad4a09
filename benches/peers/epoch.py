#!/usr/bin/env python3
"""A whole run on MNIST, process start to end, in this crate and in what one would use instead.

Net 784-800-800-10, tanh, softmax cross-entropy, batches of 64, RMSprop (alpha 0.99, epsilon 1e-8, rate 1e-4), pixels in
[0, 1], the 10,000 test images after every epoch. docs/performance.md has the results.

Install: pip install torch torchvision numpy jax, and into one folder (--peers)
  git clone https://github.com/jsalbert/biotorch
  git clone https://github.com/ChFrenkel/DirectRandomTargetProjection
  git clone https://github.com/lightonai/dfa-scales-to-modern-deep-learning
Data: --data ROOT, the folder that torchvision fills (torchvision.datasets.MNIST(ROOT, download=True)); all programs read
the plain files in ROOT/MNIST/raw. This crate's program: cargo build --release --example epoch. With more than two cores,
start `compare` by `taskset -c 0,1` so that all have two.

  epoch.py compare --data ROOT --peers DIR --ours target/release/examples/epoch               # one epoch, five rounds
  epoch.py compare --data ROOT --peers DIR --ours target/release/examples/epoch --rounds 1 --until 2 --epochs 30
  epoch.py run --data ROOT --peers DIR jax dfa                                                # one of them, by itself

`compare` starts all programs in turn, round by round, and prints seconds from start to end (median, lowest), seconds of
processor time, peak memory and the epochs. --only NAME,NAME leaves others out; --json FILE adds every run to a file, a line
each, and `report --json FILE` prints the table of all of them.
"""
import argparse, json, math, os, statistics, subprocess, sys, time

SIZES, BATCH, RATE, ALPHA, EPSILON = [784, 800, 800, 10], 64, 1e-4, 0.99, 1e-8
RUNS = [(peer, rule) for peer, rules in {"ours": "bp dfa", "jax": "bp dfa", "tensors": "bp dfa", "loader": "bp",
                                         "biotorch": "bp dfa", "drtp": "bp dfa", "tinydfa": "dfa"}.items()
        for rule in rules.split()]


def arrays(root):
    """Images (uint8, a row each) and labels of both sets, from the plain files."""
    import numpy as np

    def read(name, header):
        return np.fromfile(os.path.join(root, "MNIST", "raw", name), np.uint8)[header:]
    return [(read(name + "-images-idx3-ubyte", 16).reshape(-1, 784), read(name + "-labels-idx1-ubyte", 8))
            for name in ("train", "t10k")]


def repeat(args, epoch, errors):
    """Epochs with a test after each, until it is good enough."""
    for number in range(1, args.epochs + 1):
        epoch()
        percent = errors() / 100
        print(number, percent, flush=True)
        if percent <= args.until:
            break


# ------------------------------------------------------------------ JAX: an epoch is one compiled loop
def jax_run(args):
    import jax, jax.numpy as jnp, numpy as np
    (x, labels), (test, test_labels) = arrays(args.data)
    x, test, targets, test_labels = jnp.asarray(x), jnp.asarray(test), jax.nn.one_hot(labels, 10), jnp.asarray(test_labels)
    random = np.random.default_rng(args.seed)

    def uniform(rows, columns, bound):
        return jnp.asarray(random.uniform(-bound, bound, (rows, columns)), jnp.float32)
    layers = list(zip(SIZES, SIZES[1:]))
    weights = [(uniform(n, m, m ** -0.5), uniform(1, n, m ** -0.5)[0]) for m, n in layers]
    feedback = [uniform(10, n, n ** -0.5) for n in SIZES[1:-1]]

    def forward(weights, a):
        outputs = [a.astype(jnp.float32) / 255]
        for w, b in weights[:-1]:
            outputs.append(jnp.tanh(outputs[-1] @ w.T + b))
        return outputs, outputs[-1] @ weights[-1][0].T + weights[-1][1]

    def loss(weights, a, y):
        return -(jax.nn.log_softmax(forward(weights, a)[1]) * y).sum(1).mean()

    def dfa(weights, a, y):
        outputs, logits = forward(weights, a)
        error = (jax.nn.softmax(logits) - y) / BATCH
        deltas = [(error @ f) * (1 - h * h) for f, h in zip(feedback, outputs[1:])] + [error]
        return [(d.T @ h, d.sum(0)) for h, d in zip(outputs, deltas)]
    gradient = jax.grad(loss) if args.rule == "bp" else dfa

    def step(state, a, y):
        weights, moments = state
        g = gradient(weights, a, y)
        moments = jax.tree.map(lambda v, g: ALPHA * v + (1 - ALPHA) * g * g, moments, g)
        return jax.tree.map(lambda p, v, g: p - RATE * g / (jnp.sqrt(v) + EPSILON), weights, moments, g), moments

    def many(state, x, y, order):
        return jax.lax.scan(lambda state, i: (step(state, x[i], y[i]), None), state, order)[0]
    many = jax.jit(many, donate_argnums=0)
    wrong = jax.jit(lambda weights: (forward(weights, test)[1].argmax(1) != test_labels).sum())
    state = [(weights, jax.tree.map(jnp.zeros_like, weights))]

    def epoch():  # The last 32 images of an order are left out: a loop has one shape.
        order = random.permutation(60000)[: 60000 // BATCH * BATCH].reshape(-1, BATCH)
        state[0] = many(state[0], x, targets, jnp.asarray(order))
    repeat(args, epoch, lambda: int(wrong(state[0][0])))


# ------------------------------------------------------------------ PyTorch
def torch_run(args):
    import torch
    import torch.nn.functional as F
    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    model = torch.nn.Sequential(torch.nn.Linear(784, 800), torch.nn.Tanh(), torch.nn.Linear(800, 800), torch.nn.Tanh(),
                                torch.nn.Linear(800, 10))
    sys.path[:0] = [os.path.join(args.peers, *p) for p in (["biotorch"], ["DirectRandomTargetProjection"],
                                                           ["dfa-scales-to-modern-deep-learning", "TinyDFA"])]
    predict = model

    def gradients(x, y):  # Plain backpropagation.
        F.cross_entropy(model(x), y).backward()
    if args.peer == "biotorch":
        from biotorch.module.biomodule import BioModule
        model = predict = BioModule(model, mode={"bp": "backpropagation"}.get(args.rule, args.rule), output_dim=10)
        if args.rule == "dfa":
            def gradients(x, y):
                F.cross_entropy(model(x, targets=y, loss_function=F.cross_entropy), y).backward()
    elif args.peer == "drtp":
        backward = torch.autograd.function.BackwardCFunction
        backward.saved_variables = property(lambda ctx: ctx.saved_tensors)  # Its name when that repository was written.
        import models
        model = models.NetworkBuilder(
            "FC_800_FC_800_FC_10", input_size=28, input_channels=1, label_features=10, train_batch_size=BATCH,
            train_mode=args.rule.upper(), dropout=0, conv_act="tanh", hidden_act="tanh", output_act="none",
            fc_zero_init=False, loss="CE", device="cpu")

        def gradients(x, y):
            F.cross_entropy(model(x, F.one_hot(y, 10).float()), y).backward()

        def predict(x): return model(x, None)
    elif args.peer == "tinydfa":
        from tinydfa import DFA, DFALayer
        first, second = DFALayer(), DFALayer()
        top = DFA([first, second])

        def gradients(x, y):
            h = first(torch.tanh(model[0](x)))
            F.cross_entropy(top(model[4](second(torch.tanh(model[2](h))))), y).backward()
    elif args.rule == "dfa":  # By hand: no graph, the optimiser of PyTorch.
        feedback = [(torch.rand(10, 800) * 2 - 1) / math.sqrt(800) for _ in range(2)]

        @torch.no_grad()
        def gradients(x, y):
            outputs = [x]
            for layer in (model[0], model[2]):
                outputs.append(torch.tanh(layer(outputs[-1])))
            error = (torch.softmax(model[4](outputs[-1]), 1) - F.one_hot(y, 10)) / len(x)
            deltas = [(error @ f) * (1 - h * h) for f, h in zip(feedback, outputs[1:])] + [error]
            for layer, h, d in zip(model[::2], outputs, deltas):
                layer.weight.grad, layer.bias.grad = d.T @ h, d.sum(0)
    optimizer = torch.optim.RMSprop([p for p in model.parameters() if p.requires_grad], lr=RATE, alpha=ALPHA, eps=EPSILON)
    train, test = tensors(args) if args.peer == "tensors" else loaders(args)

    def epoch():
        model.train()
        for x, y in train():
            optimizer.zero_grad()
            gradients(x, y)
            optimizer.step()

    @torch.no_grad()
    def errors():
        model.eval()
        return sum(int((predict(x).argmax(1) != y).sum()) for x, y in test())
    repeat(args, epoch, errors)


def tensors(args):
    """Both sets as tensors in memory; a batch is a selection of rows."""
    import torch
    (x, y), (tx, ty) = [(torch.from_numpy(x).float().div_(255), torch.from_numpy(y).long()) for x, y in arrays(args.data)]
    return (lambda: ((x[i], y[i]) for i in torch.randperm(len(x)).split(BATCH)),
            lambda: zip(tx.split(1000), ty.split(1000)))


def loaders(args):
    """torchvision's set in a DataLoader of the main process, as the examples of PyTorch and of these projects have it."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    change = transforms.Compose([transforms.ToTensor(), transforms.Lambda(lambda x: x.flatten())])
    sets = [datasets.MNIST(args.data, train=train, transform=change) for train in (True, False)]
    # DRTP's DFA takes full batches only, BioTorch's own loader leaves the last one out.
    train = DataLoader(sets[0], BATCH, shuffle=True, drop_last=args.peer in ("drtp", "biotorch"))
    test = DataLoader(sets[1], 1000)
    return lambda: train, lambda: test


# ------------------------------------------------------------------ all in turn
def compare(args):
    names = args.only.split(",") if args.only else [f"{peer}-{rule}" for peer, rule in RUNS]
    runs = []
    limits = ["--until", str(args.until), "--epochs", str(args.epochs)]
    for turn in range(args.rounds):
        seed = ["--seed", str(args.seed + turn)]
        for name in names:
            peer, rule = name.split("-")
            command = [args.ours, os.path.join(args.data, "MNIST", "raw"), "--rule", rule] if peer == "ours" else [
                sys.executable, __file__, "run", "--data", args.data, "--peers", args.peers, peer, rule]
            environment = dict(os.environ, OMP_NUM_THREADS="2", JAX_PLATFORMS="cpu")
            start = time.monotonic()
            child = subprocess.Popen(command + limits + seed, stdout=subprocess.PIPE, env=environment)
            lines = child.stdout.read().decode().splitlines()
            _, status, used = os.wait4(child.pid, 0)
            wall = time.monotonic() - start
            if status:
                sys.exit(f"{name} failed")
            epochs, percent = lines[-1].split()
            runs.append(dict(name=name, seed=args.seed + turn, wall=wall, cpu=used.ru_utime + used.ru_stime,
                             mib=used.ru_maxrss / 1024, epochs=int(epochs), percent=float(percent)))
            print(json.dumps(runs[-1]), file=args.json and open(args.json, "a"), flush=True)
    table(runs)


def table(runs):
    print("| | seconds | lowest | processor | peak MiB | epochs | test error |\n|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(run["name"] for run in runs):
        own = [run for run in runs if run["name"] == name]
        middle = {key: statistics.median(run[key] for run in own) for key in ("wall", "cpu", "mib")}
        epochs, percent = (", ".join(str(run[key]) for run in own) for key in ("epochs", "percent"))
        print(f"| {name} | {middle['wall']:.2f} | {min(run['wall'] for run in own):.2f} | {middle['cpu']:.1f} | "
              f"{middle['mib']:.0f} | {epochs} | {percent} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "compare", "report"])
    parser.add_argument("peer", nargs="?", choices=list(dict.fromkeys(peer for peer, _ in RUNS if peer != "ours")))
    parser.add_argument("rule", nargs="?", choices=["bp", "dfa"])
    parser.add_argument("--data", default="data", help="ROOT, with MNIST/raw in it")
    parser.add_argument("--peers", default=".", help="folder with the three clones")
    parser.add_argument("--ours", default="target/release/examples/epoch")
    parser.add_argument("--epochs", type=int, default=1, help="at most")
    parser.add_argument("--until", type=float, default=0, help="test error in percent that ends a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="such as ours-dfa,jax-dfa")
    parser.add_argument("--json", help="file that every run is added to; report prints the table of it")
    args = parser.parse_intermixed_args()
    if args.what == "report":
        table([json.loads(line) for line in open(args.json)])
    elif args.what == "compare":
        compare(args)
    else:
        jax_run(args) if args.peer == "jax" else torch_run(args)


if __name__ == "__main__":
    main()
