"""The networks of fixtures/weights/torchvision.pth and torchvision_bn.pth, exported to ONNX by torch.onnx.

Writes fixtures/weights/torchvision.onnx and torchvision_bn.onnx; the exporter folds batch normalisation. Written with
torch 1.13.1.
Run: /usr/bin/python3 onnx_files.py   (a second)
"""

import torch
from torch import nn

from hashed import FIXTURES

CHANNELS, CROP, CLASSES, HEAD = 8, 64, 10, 16
OUT = FIXTURES / "weights"


class Vgg(nn.Module):
    """torchvision's VGG with the configuration A."""

    def __init__(self, batch_norm):
        super().__init__()
        layers, channels = [], 3
        for convolutions in [1, 1, 2, 2, 2]:
            for _ in range(convolutions):
                layers.append(nn.Conv2d(channels, CHANNELS, 3, padding=1))
                layers += [nn.BatchNorm2d(CHANNELS)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
                channels = CHANNELS
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        inputs = CHANNELS * (CROP // 32) ** 2
        head = [nn.Linear(inputs, HEAD), nn.ReLU(), nn.Dropout(), nn.Linear(HEAD, HEAD), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*head, nn.Linear(HEAD, CLASSES))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


def main():
    for name in ["torchvision", "torchvision_bn"]:
        model = Vgg(name.endswith("_bn"))
        model.load_state_dict(torch.load(OUT / f"{name}.pth"))
        torch.onnx.export(model.eval(), torch.zeros(1, 3, CROP, CROP), OUT / f"{name}.onnx", opset_version=13)


if __name__ == "__main__":
    main()
