#!/usr/bin/env python3
"""A training step of convolutional nets, in this crate and in PyTorch at its fastest on a CPU.

Three convolutions of 32, 64 and 64 kernels over 3x32x32, tanh, then 128 units and 10; batches of 64, softmax
cross-entropy, plain SGD, random images: the cases `conv...` of `cargo bench --bench step`. PyTorch is by hand: no graph, the
operators called one after the other, tensors channels last, large blocks of memory kept, threads bound to their cores. DFA
enters behind the pooling, as it does here. docs/performance.md has the results.

Install: pip install torch. Build: cargo bench --bench step --no-run, which prints the program's name.

  conv.py compare --ours target/release/deps/step-... [--rounds 5] [--json FILE]   # all cases in turn, round by round
  conv.py run --net conv-3x3 --rule dfa --threads 2                                 # PyTorch alone

MKL takes its fast path on processors of AMD only if a library is loaded first that says so, which --preload names:
  echo 'int mkl_serv_intel_cpu_true(void) { return 1; }' | cc -shared -fPIC -x c - -o liblike-intel.so
"""
import argparse, json, os, statistics, subprocess, sys, time

# Kernel, padding, stride, and whether a max-pooling of 3x3 with stride 2 follows each convolution.
NETS = {"conv": (5, 2, 1, True), "conv-3x3": (3, 1, 1, True), "conv-1x1": (1, 0, 1, True), "conv-stride-2": (5, 2, 2, False)}
CASES = [("conv", "f32"), ("conv", "f64"), ("conv-3x3", "f32"), ("conv-1x1", "f32"), ("conv-stride-2", "f32")]
BATCH, RATE = 64, 1e-3


class Net:
    def __init__(self, torch, net, rule, dtype):
        self.aten, self.torch, self.rule = torch.ops.aten, torch, rule
        kernel, padding, stride, self.pools = NETS[net]
        self.how = [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1
        random = torch.Generator().manual_seed(0)

        def uniform(*shape, fan_in):
            return ((2 * torch.rand(*shape, generator=random) - 1) / fan_in ** 0.5).to(dtype)

        self.convs, shape = [], (3, 32, 32)
        for channels in (32, 64, 64):
            fan_in = shape[0] * kernel * kernel
            weights = uniform(channels, shape[0], kernel, kernel, fan_in=fan_in)
            side = (shape[1] + 2 * padding - kernel) // stride + 1
            shape = (channels,) + 2 * ((side - 1) // 2 if self.pools else side,)
            feedback = uniform(10, shape[0] * shape[1] * shape[2], fan_in=10)
            self.convs.append([weights.contiguous(memory_format=torch.channels_last), torch.zeros(channels, dtype=dtype),
                               feedback, shape])
        inputs = shape[0] * shape[1] * shape[2]
        self.dense = [uniform(128, inputs, fan_in=inputs), uniform(10, 128, fan_in=128)]
        self.biases = [torch.zeros(128, dtype=dtype), torch.zeros(10, dtype=dtype)]
        self.feedback = uniform(10, 128, fan_in=10)
        self.images = [torch.rand(BATCH, 3, 32, 32, generator=random).to(dtype).contiguous(memory_format=torch.channels_last)
                       for _ in range(20)]
        self.targets = [torch.nn.functional.one_hot(torch.randint(0, 10, (BATCH,), generator=random), 10).to(dtype)
                        for _ in range(20)]

    def step(self, images, targets):
        aten, torch = self.aten, self.torch
        h, seen = images, []
        for weights, bias, _, _ in self.convs:
            before = h
            a = aten.convolution(h, weights, bias, *self.how).tanh_()
            h, winners = aten.max_pool2d_with_indices(a, [3, 3], [2, 2]) if self.pools else (a, None)
            seen.append((before, a, winners))
        flat = h.reshape(BATCH, -1)
        hidden = torch.addmm(self.biases[0], flat, self.dense[0].t()).tanh_()
        error = torch.addmm(self.biases[1], hidden, self.dense[1].t()).softmax(1).sub_(targets).div_(BATCH)

        direct = self.rule == "dfa"
        delta = aten.tanh_backward(error @ (self.feedback if direct else self.dense[1]), hidden)
        back = None if direct else (delta @ self.dense[0]).view(h.shape).contiguous(memory_format=torch.channels_last)
        self.dense[1].addmm_(error.t(), hidden, alpha=-RATE)
        self.dense[0].addmm_(delta.t(), flat, alpha=-RATE)
        for bias, delta in zip(self.biases, (delta, error)):
            bias.sub_(delta.sum(0), alpha=RATE)
        for l in (2, 1, 0):
            (weights, bias, feedback, (channels, side, _)), (before, a, winners) = self.convs[l], seen[l]
            if direct:  # The matrix stores the channels last too, so nothing is copied.
                back = (error @ feedback).view(BATCH, side, side, channels).permute(0, 3, 1, 2)
            if self.pools:
                back = aten.max_pool2d_with_indices_backward(back, a, [3, 3], [2, 2], [0, 0], [1, 1], False, winners)
            delta = aten.tanh_backward(back, a)
            wanted = [not direct and l > 0, True, True]
            back, of_weights, of_bias = aten.convolution_backward(delta, before, weights, [len(bias)], *self.how, wanted)
            weights.sub_(of_weights, alpha=RATE)
            bias.sub_(of_bias, alpha=RATE)


def run(args):
    import torch
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    net = Net(torch, args.net, args.rule, {"f32": torch.float32, "f64": torch.float64}[args.dtype])
    times, start = [], time.perf_counter()
    while len(times) < 8 or time.perf_counter() - start < args.seconds:
        began = time.perf_counter()
        net.step(net.images[len(times) % 20], net.targets[len(times) % 20])
        times.append(time.perf_counter() - began)
    times = sorted(times[3:])
    print(json.dumps({"median_s": times[len(times) // 2], "p10_s": times[len(times) // 10]}))


def peer(args, net, rule, dtype, threads):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), OMP_PROC_BIND="true",
                       MALLOC_TRIM_THRESHOLD_="1000000000", MALLOC_MMAP_THRESHOLD_="1000000000")
    if args.preload:
        environment["LD_PRELOAD"] = args.preload
    command = [sys.executable, __file__, "run", "--net", net, "--rule", rule, "--dtype", dtype, "--threads", str(threads),
               "--seconds", str(args.seconds)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


def ours(args, net, rule, dtype, threads):
    case = f"{net} batch {BATCH} {rule.upper()} sgd {dtype} {threads} "
    command = [args.ours, "--bench", "--json", "--only", case, "--seconds", str(args.seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def compare(args):
    cases = [(net, rule, dtype, threads) for net, dtype in CASES for rule in ("bp", "dfa") for threads in (1, 2)]
    found = {case: [] for case in cases}
    for number in range(args.rounds):
        for case in cases:
            pair = [program(args, *case) for program in ((ours, peer) if number % 2 == 0 else (peer, ours))]
            here, there = pair if number % 2 == 0 else pair[::-1]
            found[case].append((here, there))
            if args.json:
                with open(args.json, "a") as file:
                    keys = dict(zip(("net", "rule", "dtype", "threads"), case))
                    lines = dict(keys, round=number, ours=[here["median_s"], here["p10_s"]], peer=[there["median_s"], there["p10_s"]])
                    print(json.dumps(lines), file=file)
    print("| net | type | rule | threads | ours, ms | PyTorch, ms | times PyTorch |\n|---|---|---|---|---|---|---|")
    for (net, rule, dtype, threads), rounds in found.items():
        def middle(index, key):
            return statistics.median(1e3 * pair[index][key] for pair in rounds)
        ratio = statistics.median(here["median_s"] / there["median_s"] for here, there in rounds)
        cells = [f"{middle(i, 'median_s'):.1f} ({middle(i, 'p10_s'):.1f})" for i in (0, 1)]
        print(f"| {net} | {dtype} | {rule.upper()} | {threads} | {cells[0]} | {cells[1]} | {ratio:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    alone, both = commands.add_parser("run"), commands.add_parser("compare")
    for command, work in ((alone, run), (both, compare)):
        command.set_defaults(work=work)
        command.add_argument("--seconds", type=float, default=2, help="for each measurement")
    alone.add_argument("--net", choices=NETS, default="conv")
    alone.add_argument("--rule", choices=["bp", "dfa"], default="bp")
    alone.add_argument("--dtype", choices=["f32", "f64"], default="f32")
    alone.add_argument("--threads", type=int, default=1)
    both.add_argument("--ours", required=True, help="the program of benches/step.rs")
    both.add_argument("--rounds", type=int, default=5)
    both.add_argument("--preload", help="a library to load before PyTorch")
    both.add_argument("--json", help="file to which every measurement is added")
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
