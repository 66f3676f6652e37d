"""EDSR and RRDBNet in torch with the layer names of other code bases, written from the definitions."""

import torch
from torch import nn
from torch.nn import functional

DIV2K_MEAN = torch.tensor([0.4488, 0.4371, 0.4040])


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def shift(sign: float) -> nn.Conv2d:
    layer = nn.Conv2d(3, 3, 1)
    layer.weight.data = torch.eye(3).reshape(3, 3, 1, 1)
    layer.bias.data = sign * 255 * DIV2K_MEAN
    return layer


class EdsrPytorchBlock(nn.Module):
    def __init__(self, features, res_scale):
        super().__init__()
        self.body = nn.Sequential(conv(features, features), nn.ReLU(), conv(features, features))
        self.res_scale = res_scale

    def forward(self, x):
        return x + self.res_scale * self.body(x)


class EdsrPytorch(nn.Module):
    """Maps [0,1] to [0,1], but works on 0..255 inside, like EDSR-PyTorch."""

    def __init__(self, scale, features, blocks, res_scale=1.0):
        super().__init__()
        self.sub_mean, self.add_mean = shift(-1), shift(1)
        self.head = nn.Sequential(conv(3, features))
        body = [EdsrPytorchBlock(features, res_scale) for _ in range(blocks)]
        self.body = nn.Sequential(*body, conv(features, features))
        stages = []
        for factor in {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]:
            stages += [conv(features, features * factor**2), nn.PixelShuffle(factor)]
        self.tail = nn.Sequential(nn.Sequential(*stages), conv(features, 3))

    def forward(self, low):
        x = self.head(self.sub_mean(255 * low))
        return self.add_mean(self.tail(self.body(x) + x)) / 255


def leaky(x):
    return functional.leaky_relu(x, 0.2)


class DenseBlock(nn.Module):
    """With `sequential` its convolutions have the old ESRGAN's names: conv1.0 instead of conv1."""

    def __init__(self, features, growth, *, sequential):
        super().__init__()
        for k in range(1, 6):
            layer = conv(features + (k - 1) * growth, growth if k < 5 else features)
            setattr(self, f"conv{k}", nn.Sequential(layer) if sequential else layer)

    def forward(self, x):
        seen = x
        for k in range(1, 5):
            seen = torch.cat([seen, leaky(getattr(self, f"conv{k}")(seen))], 1)
        return x + 0.2 * self.conv5(seen)


class Rrdb(nn.Module):
    def __init__(self, features, growth, *, prefix, sequential):
        super().__init__()
        self.names = [f"{prefix}{j}" for j in (1, 2, 3)]
        for name in self.names:
            setattr(self, name, DenseBlock(features, growth, sequential=sequential))

    def forward(self, x):
        y = x
        for name in self.names:
            y = getattr(self, name)(y)
        return x + 0.2 * y


class Shortcut(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.sub = inside

    def forward(self, x):
        return x + self.sub(x)


class EsrganOld(nn.Module):
    def __init__(self, features, blocks, growth, stages=2):
        super().__init__()
        trunk = [Rrdb(features, growth, prefix="RDB", sequential=True) for _ in range(blocks)]
        layers = [conv(3, features), Shortcut(nn.Sequential(*trunk, conv(features, features)))]
        for _ in range(stages):
            layers += [nn.Upsample(scale_factor=2), conv(features, features), nn.LeakyReLU(0.2)]
        layers += [conv(features, features), nn.LeakyReLU(0.2), conv(features, 3)]
        self.model = nn.Sequential(*layers)

    def forward(self, low):
        return self.model(low)


NEW_NAMES = ("RRDB_trunk", "trunk_conv", "upconv{u}", "HRconv")


class EsrganNew(nn.Module):
    """`names` are those of trunk, its last convolution, the upsampling ones ({u}), and the HR one."""

    def __init__(self, features, blocks, growth, scale=4, *, stages=2, names=NEW_NAMES, prefix="RDB"):
        super().__init__()
        self.unshuffle = 2**stages // scale
        self.names = (*names[:2], *(names[2].format(u=u) for u in range(1, stages + 1)), names[3])
        self.conv_first = conv(3 * self.unshuffle**2, features)
        trunk = [Rrdb(features, growth, prefix=prefix, sequential=False) for _ in range(blocks)]
        setattr(self, self.names[0], nn.Sequential(*trunk))
        for name in self.names[1:]:
            setattr(self, name, conv(features, features))
        self.conv_last = conv(features, 3)

    def forward(self, low):
        trunk, body, *ups, hr = (getattr(self, name) for name in self.names)
        x = self.conv_first(functional.pixel_unshuffle(low, self.unshuffle))
        x = x + body(trunk(x))
        for up in ups:
            x = leaky(up(functional.interpolate(x, scale_factor=2)))
        return self.conv_last(leaky(hr(x)))


def basicsr_rrdb(features, blocks, growth, scale=4, stages=2):
    names = ("body", "conv_body", "conv_up{u}", "conv_hr")
    return EsrganNew(features, blocks, growth, scale, stages=stages, names=names, prefix="rdb")


class MsrResNet(nn.Module):
    """Another network of BasicSR, whose blocks have the names of EDSR's."""

    def __init__(self, features, blocks):
        super().__init__()
        self.conv_first = conv(3, features)
        self.body = nn.ModuleList(
            nn.ModuleDict({"conv1": conv(features, features), "conv2": conv(features, features)})
            for _ in range(blocks)
        )
        for name in ("upconv1", "upconv2"):
            setattr(self, name, conv(features, 4 * features))
        self.conv_hr, self.conv_last = conv(features, features), conv(features, 3)
