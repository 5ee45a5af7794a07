"""Gradients and four SGD steps of narrow networks C and A-LRN, with both momentum variants.

Writes fixtures/sgd_c.safetensors and fixtures/sgd_a_lrn.safetensors: the logits
and gradients of step 0, and the losses and weights of four steps with Caffe's
momentum (the velocity includes the learning rate) and PyTorch's (it does not).
Run: /usr/bin/python3 sgd_steps.py   (a minute or two, with the seed search)
The reference computes in float64 from the float32 hashed values, so the Rust
test's tolerance covers only its own float32 rounding. The script searches for
seeds with which no ReLU input is so close to 0, and no two candidates of a
max-pool so close to each other, that float32 rounding could change the outcome.
It asserts that the two variants differ by much more than the tolerance.
"""

import numpy as np
import torch
import torch.nn.functional as F

from hashed import FIXTURES, conv_layers, images, tensor, write_safetensors

WIDTHS, HEAD, CLASSES, SIDE, BATCH = [8, 8, 16, 32, 32], 16, 10, 32, 2
MOMENTUM, DECAY, STEPS = 0.9, 5e-2, 4

# A-LRN's larger input scale makes the normalisation matter. The margins (of step
# 0, of the later steps) are in units of the activations, so they grow with the
# input. A-LRN diverges at a learning rate of 0.05 because its activations are
# about 14 times larger. At its lower learning rate weight decay moves the weights
# by only 4e-5, so only C tests weight decay.
NETS = {
    "C": dict(file="sgd_c", scale=1, rates=[0.05, 0.05, 0.005, 0.005], margins=(1e-4, 1e-5)),
    "A-LRN": dict(file="sgd_a_lrn", scale=30, rates=[2e-4, 2e-4, 2e-5, 2e-5], margins=(1e-3, 1e-4)),
}


def hashed_weights(config, dtype=torch.float64):
    shapes, inputs = {}, 3
    for name, block, kernel in conv_layers(config):
        shapes[name] = (WIDTHS[block], inputs, kernel, kernel)
        inputs = WIDTHS[block]
    # Five pools leave a 1x1 map of a 32x32 crop.
    shapes.update(fc6=(HEAD, inputs), fc7=(HEAD, HEAD), fc8=(CLASSES, HEAD))
    weights = {}
    for layer, shape in shapes.items():
        for name, s in ((f"{layer}.weight", shape), (f"{layer}.bias", shape[:1])):
            weights[name] = torch.from_numpy(tensor(name, s)).to(dtype).requires_grad_()
    return weights


def inputs_of(config, seed, dtype=torch.float64):
    scale = np.float32(NETS[config]["scale"])
    return torch.from_numpy(images(seed, BATCH, SIDE, SIDE) * scale).to(dtype)  # rounded to float32


def lrn(a, k=2.0, n=5, alpha=1e-4, beta=0.75):
    """Cross-channel LRN in AlexNet's formula: alpha is not divided by n."""
    squares = F.pad(a * a, (0, 0, 0, 0, n // 2, n // 2))
    total = sum(squares[:, j : j + a.shape[1]] for j in range(n))
    return a / (k + alpha * total) ** beta


def pool_margin(x):
    """The smallest gap, per sample, between the two largest values of any 2x2 window with a positive maximum."""
    windows = x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(x.shape[0], -1, 4)
    top = windows.topk(2, dim=2).values
    gap = torch.where(top[..., 0] > 0, top[..., 0] - top[..., 1], torch.inf)
    return gap.amin(1)


def forward(config, w, x, alpha=1e-4):
    """Logits, and per sample the smallest distance of any ReLU or max-pool from its non-differentiable point."""
    margins = []
    layers = conv_layers(config)
    for i, (name, block, kernel) in enumerate(layers):
        x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=kernel // 2)
        margins.append(x.detach().abs().flatten(1).amin(1))
        x = F.relu(x)
        if config == "A-LRN" and name == "conv1_1":
            x = lrn(x, alpha=alpha)
        if i + 1 == len(layers) or layers[i + 1][1] != block:
            margins.append(pool_margin(x.detach()))
            x = F.max_pool2d(x, 2)
    x = x.flatten(1)
    for name in ("fc6", "fc7"):
        x = F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])
        margins.append(x.detach().abs().amin(1))
        x = F.relu(x)
    return F.linear(x, w["fc8.weight"], w["fc8.bias"]), torch.stack(margins).amin(0)


def train(config, seed, form, dtype=torch.float64):
    """Losses, margins and final weights, and the logits and gradients of step 0."""
    w = hashed_weights(config, dtype)
    is_weight = {name: name.endswith(".weight") for name in w}
    velocity = {name: torch.zeros_like(p) for name, p in w.items()}
    optimiser = torch.optim.SGD(
        [
            {"params": [p for n, p in w.items() if is_weight[n]], "weight_decay": DECAY},
            {"params": [p for n, p in w.items() if not is_weight[n]], "weight_decay": 0.0},
        ],
        lr=1.0,
        momentum=MOMENTUM,
    )
    losses, margins = [], []
    for t, rate in enumerate(NETS[config]["rates"]):
        targets = torch.tensor([(3 * t + 5 * n + 1) % CLASSES for n in range(BATCH)])
        logits, margin = forward(config, w, inputs_of(config, seed + t, dtype))
        loss = F.cross_entropy(logits, targets)
        optimiser.zero_grad()
        loss.backward()
        losses.append(loss.item())
        margins.append(margin.min().item())
        if t == 0:
            first = logits.detach().clone(), {n: p.grad.clone() for n, p in w.items()}
        if form == "torch":
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        else:
            with torch.no_grad():
                for n, p in w.items():
                    decayed = p.grad + DECAY * p if is_weight[n] else p.grad
                    velocity[n] = MOMENTUM * velocity[n] + rate * decayed
                    p -= velocity[n]
    return losses, margins, {n: p.detach() for n, p in w.items()}, first


def find_seed(config, chunk=32, limit=40000):
    """The first seed of 1, 101, 201, ... with large enough margins, and its runs with both variants."""
    at_first, later = NETS[config]["margins"]
    w = hashed_weights(config)
    for start in range(0, limit, chunk):
        seeds = [1 + 100 * i for i in range(start, start + chunk)]
        with torch.no_grad():
            _, margin = forward(config, w, torch.cat([inputs_of(config, s) for s in seeds]))
        for seed, m in zip(seeds, margin.reshape(chunk, BATCH).amin(1)):
            if m < at_first:
                continue
            runs = {form: train(config, seed, form) for form in ("caffe", "torch")}
            if all(min(run[1][1:]) >= later for run in runs.values()):
                return seed, runs
    raise SystemExit(f"{config}: no seed found")


def difference(a, b):
    """Per tensor: max|a-b| / max|b|."""
    return {n: ((a[n].double() - b[n]).abs().max() / b[n].abs().max()).item() for n in b}


def main():
    torch.set_num_threads(1)
    for config, net in NETS.items():
        seed, runs = find_seed(config)
        (losses_c, margins_c, caffe, first), (losses_t, margins_t, torchs, _) = runs["caffe"], runs["torch"]
        logits, grads = first
        for margins in (margins_c, margins_t):
            assert margins[0] >= net["margins"][0] and min(margins[1:]) >= net["margins"][1]
        assert max(losses_c + losses_t) < 50  # finite and moderate
        forms = difference(caffe, torchs)
        most = max(forms, key=forms.get)
        assert forms[most] > 1e-2, forms
        print(f"{config}: seed {seed}, rates {net['rates']}")
        print("  losses caffe", [f"{v:.5f}" for v in losses_c], "torch", [f"{v:.5f}" for v in losses_t])
        print("  margins caffe", [f"{v:.1e}" for v in margins_c], "torch", [f"{v:.1e}" for v in margins_t])
        print(f"  logits of step 0: largest {logits.abs().max():.3f}")
        print(f"  variants differ most in {most} by {forms[most]:.3e}, least by {min(forms.values()):.1e}")
        start = {n: p.detach() for n, p in hashed_weights(config).items()}
        moved = difference(caffe, start)
        for form, run in runs.items():  # the error of float32 alone, with the same code
            single = train(config, seed, form, torch.float32)
            noise = difference(single[2], run[2])
            grad_noise = difference(single[3][1], grads)
            print(
                f"  float32 against float64, {form}: weights {max(noise.values()):.1e}, "
                f"gradients {max(grad_noise.values()):.1e}"
            )
        for n in grads:
            if n.endswith(".weight"):
                print(
                    f"    {n:16} grad norm {grads[n].norm():.3e} max {grads[n].abs().max():.3e} "
                    f"moved {moved[n]:.3f} variants {forms[n]:.1e}"
                )
        if config == "A-LRN":  # the normalisation must matter; dividing alpha by n is a common mistake
            with torch.no_grad():
                slip = forward(config, hashed_weights(config), inputs_of(config, seed), alpha=1e-4 / 5)[0]
            change = ((slip - logits).abs().max() / logits.abs().max()).item()
            assert change > 1e-2, change
            print(f"  alpha divided by n would change the logits by {change:.1e}")
        tensors = {"logits": logits, "loss.caffe": losses_c, "loss.torch": losses_t}
        for prefix, values in (("grad", grads), ("caffe", caffe), ("torch", torchs)):
            tensors.update({f"{prefix}.{n}": v.numpy() for n, v in values.items()})
        write_safetensors(
            FIXTURES / f"{net['file']}.safetensors",
            tensors,
            {
                "config": config,
                "seed": str(seed),
                "input_scale": str(net["scale"]),
                "lr": ",".join(map(str, net["rates"])),
                "momentum": str(MOMENTUM),
                "weight_decay": str(DECAY),
                "forms_difference": f"{forms[most]:.6e}",
                "forms_difference_tensor": most,
            },
        )


if __name__ == "__main__":
    main()
