"""Gradient error of PyTorch's bf16 autocast against float64, for narrow networks A and D.

Writes fixtures/bf16_gradients.json: the loss, and for every parameter
norm(gradient with autocast - gradient in float64) / norm(gradient in float64),
with hashed weights and images. The tests compare the GPU's bf16 error with it.
Run: python bf16_gradients.py with torch 2 (a few seconds, on a CPU)
"""

import torch
import torch.nn.functional as F

from hashed import FIXTURES, conv_layers, images, tensor, write_json

WIDTHS, HEAD, CLASSES, SIDE, BATCH, SEED = [8, 16, 32, 64, 64], 64, 10, 32, 16, 7


def weights(config, dtype):
    shapes, inputs = {}, 3
    for name, block, kernel in conv_layers(config):
        shapes[name] = (WIDTHS[block], inputs, kernel, kernel)
        inputs = WIDTHS[block]
    shapes.update(fc6=(HEAD, inputs), fc7=(HEAD, HEAD), fc8=(CLASSES, HEAD))
    made = {}
    for layer, shape in shapes.items():
        for part, size in ((f"{layer}.weight", shape), (f"{layer}.bias", shape[:1])):
            made[part] = torch.tensor(tensor(part, size), dtype=dtype, requires_grad=True)
    return made


def loss_of(config, w, x, targets):
    blocks = [block for _, block, _ in conv_layers(config)]
    for i, (name, block, kernel) in enumerate(conv_layers(config)):
        x = F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=kernel // 2))
        if i + 1 == len(blocks) or blocks[i + 1] != block:
            x = F.max_pool2d(x, 2, 2)
    x = x.flatten(1)
    for layer in ("fc6", "fc7"):
        x = F.relu(F.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"]))
    return F.cross_entropy(F.linear(x, w["fc8.weight"], w["fc8.bias"]).to(w["fc8.bias"].dtype), targets)


def main():
    result = {"torch": torch.__version__}
    targets = torch.tensor([(5 * n + 1) % CLASSES for n in range(BATCH)])
    pixels = images(SEED, BATCH, SIDE, SIDE)
    for config in ("A", "D"):
        exact = weights(config, torch.float64)
        loss = loss_of(config, exact, torch.tensor(pixels, dtype=torch.float64), targets)
        loss.backward()
        half = weights(config, torch.float32)
        x = torch.tensor(pixels).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            half_loss = loss_of(config, half, x, targets)
        half_loss.backward()
        errors = {}
        for name, parameter in exact.items():
            difference = half[name].grad.double() - parameter.grad
            errors[name] = float(difference.norm() / parameter.grad.norm())
        result[config] = {"loss": loss.item(), "loss_bf16": half_loss.item(), "errors": errors}
        print(config, result[config]["loss"], result[config]["loss_bf16"], max(errors.values()))
    write_json(FIXTURES / "bf16_gradients.json", result)


if __name__ == "__main__":
    main()
