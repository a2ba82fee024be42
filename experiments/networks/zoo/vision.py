"""Networks that see digits: convolutions, patches, normalised weights, generators."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from experiments.networks.zoo.parts import (
    Made,
    adam,
    adamw,
    classifier,
    images,
    lion,
    network,
    sgdm,
    trained,
)  # fmt: skip


class ViT(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, 2)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.body(x)[:, 0]))


@network
def vit() -> Made:
    model = ViT()
    return classifier(model, adamw(model))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-1))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


@network
def convnext() -> Made:
    model = nn.Sequential(
        nn.Conv2d(1, 24, 2, 2), ConvNeXtBlock(24), ConvNeXtBlock(24), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.LayerNorm(24), nn.Linear(24, 10),
    )  # fmt: skip
    return classifier(model, adamw(model))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def block(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

        self.down1, self.down2, self.down3 = block(1, 16), block(16, 32), block(32, 32)
        self.merge1, self.merge2 = block(64, 16), block(32, 16)
        self.up1 = nn.ConvTranspose2d(32, 32, 2, 2)
        self.up2 = nn.ConvTranspose2d(16, 16, 2, 2)
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.down3(F.max_pool2d(b, 2))
        b = self.merge1(torch.cat([self.up1(c), b], 1))
        return self.out(self.merge2(torch.cat([self.up2(b), a], 1)))


@network
def unet() -> Made:
    model, data = UNet(), images(32, 0.0)
    draw = torch.Generator().manual_seed(1)

    def loss():
        x, _ = data()
        return F.mse_loss(model(x + torch.randn(x.shape, generator=draw)), x)

    return trained(model, sgdm(model, lr=0.05, decay=1e-2), loss)


@network
def conv1d_grouped() -> Made:
    def block(i, o, **kw):
        return nn.Sequential(nn.Conv1d(i, o, 3, bias=False, **kw), nn.BatchNorm1d(o), nn.ReLU())

    model = nn.Sequential(
        block(1, 16, padding=1), block(16, 32, groups=4, dilation=2, padding=2),
        block(32, 32, groups=32, padding=1), block(32, 64, groups=8, stride=2),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return classifier(model, adam(model), lambda x: model(x.flatten(2)))


@network
def conv3d() -> Made:
    def block(i, o, **kw):
        return nn.Sequential(nn.Conv3d(i, o, 3, padding=1, bias=False, **kw), nn.BatchNorm3d(o), nn.ReLU())

    model = nn.Sequential(
        block(1, 8), block(8, 16, stride=2), block(16, 32), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    return classifier(model, sgdm(model), lambda x: model(x.view(-1, 1, 4, 4, 4)))


@network
def weight_norm() -> Made:
    wn = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(
        nn.Flatten(), wn(nn.Linear(64, 96)), nn.ReLU(), wn(nn.Linear(96, 96)), nn.ReLU(), wn(nn.Linear(96, 10))
    )
    gains = [p for n, p in model.named_parameters() if n.endswith("original0") or p.ndim < 2]
    rows = [p for n, p in model.named_parameters() if n.endswith("original1")]
    return classifier(
        model, torch.optim.AdamW([{"params": rows, "weight_decay": 1.0}, {"params": gains, "weight_decay": 0.0}],
                                 lr=4e-3, betas=(0.9, 0.95)),
    )  # fmt: skip


@network
def spectral_norm() -> Made:
    sn = nn.utils.parametrizations.spectral_norm
    model = nn.Sequential(
        nn.Flatten(), sn(nn.Linear(64, 64)), nn.LeakyReLU(), sn(nn.Linear(64, 64)), nn.LeakyReLU(), nn.Linear(64, 10)
    )
    return classifier(model, adamw(model))


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 2, 2)
        self.body = nn.Sequential(MixerBlock(16, 32), MixerBlock(16, 32), nn.LayerNorm(32))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.body(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


@network
def mixer() -> Made:
    model = Mixer()
    return classifier(model, lion(model))


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(128, 8), nn.Linear(128, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 64))


@network
def vae() -> Made:
    model, data = VAE(), images(64, 0.1)
    draw = torch.Generator().manual_seed(1)

    def loss():
        x = data()[0].flatten(1)
        h = model.encoder(x)
        mean, log_variance = model.mean(h), model.log_variance(h)
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=draw)
        kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1).mean()
        return (model.decoder(z) - x).square().sum(1).mean() + kl

    return trained(model, adamw(model, lr=2e-3, decay=2.0), loss)


@network
def gan_generator() -> Made:
    g = nn.Sequential(
        nn.Linear(16, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64),
    )  # fmt: skip
    sn = nn.utils.parametrizations.spectral_norm
    d = nn.Sequential(
        sn(nn.Linear(64, 64)), nn.LeakyReLU(0.2), sn(nn.Linear(64, 64)), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )
    model = nn.ModuleDict({"generator": g, "discriminator": d})
    draw, data = torch.Generator().manual_seed(1), images(64, 0.1)
    og = torch.optim.AdamW(g.parameters(), lr=2e-3, betas=(0.5, 0.95), weight_decay=1.0)
    od = torch.optim.AdamW(d.parameters(), lr=2e-3, betas=(0.5, 0.95), weight_decay=1.0)

    def step():
        real = data()[0].flatten(1)
        fake = g(torch.randn(64, 16, generator=draw))
        od.zero_grad()
        (F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()).backward()
        od.step()
        og.zero_grad()
        F.softplus(-d(fake)).mean().backward()
        og.step()

    return model, og, step


@network
def siamese() -> Made:
    tower = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 96, bias=False), nn.BatchNorm1d(96), nn.ReLU(),
        nn.Linear(96, 96, bias=False), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 16),
    )  # fmt: skip
    data = images(64, 0.5)
    draw = torch.Generator().manual_seed(1)

    def loss():
        x, _ = data()
        a = F.normalize(tower(x), dim=1)
        b = F.normalize(tower(x + 0.5 * torch.randn(x.shape, generator=draw)), dim=1)
        return F.cross_entropy(a @ b.T / 0.1, torch.arange(64))

    return trained(tower, sgdm(tower), loss)
