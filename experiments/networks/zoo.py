"""Small networks and training loops of many kinds, for `experiments.networks.heldout`.

Each is a function that returns model, optimizer and a function that takes one training step; the caller seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from experiments.networks.corpus import load_corpus
from experiments.networks.data import load_images
from rotsim.measure import Lion

Made = tuple[nn.Module, torch.optim.Optimizer, Callable[[], object]]
NETWORKS: dict[str, Callable[[], Made]] = {}


def network(make: Callable[[], Made]) -> Callable[[], Made]:
    NETWORKS[make.__name__] = make
    return make


def images(batch: int = 64, noise: float = 0.5) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Batches of digits (batch, 1, 8, 8) with fresh noise on every pixel, and their labels."""
    digits, draw = load_images("digits"), torch.Generator().manual_seed(0)

    def next_batch() -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(len(digits.train_x), (batch,), generator=draw)
        x = digits.train_x[chosen]
        x = x + noise * torch.randn(x.shape, generator=draw)
        return x.view(-1, 1, 8, 8), digits.train_y[chosen]

    return next_batch


def text(batch: int = 16, length: int = 32) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Windows of the corpus and the bytes that follow."""
    tokens, draw = load_corpus().train, torch.Generator().manual_seed(0)

    def next_batch() -> tuple[torch.Tensor, torch.Tensor]:
        start = torch.randint(len(tokens) - length - 1, (batch, 1), generator=draw)
        rows = tokens[start + torch.arange(length + 1)]
        return rows[:, :-1], rows[:, 1:]

    return next_batch


def groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Matrices decay, vectors do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(model: nn.Module, lr: float = 4e-3, decay: float = 1.0, beta2: float = 0.95) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups(model, decay), lr=lr, betas=(0.9, beta2))


def adam(model: nn.Module, lr: float = 4e-3, decay: float = 1e-2) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups(model, decay), lr=lr, betas=(0.9, 0.95))


def sgdm(model: nn.Module, lr: float = 0.1, decay: float = 5e-3) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups(model, decay), lr=lr, momentum=0.9)


def lion(model: nn.Module, lr: float = 4e-4, decay: float = 10.0) -> torch.optim.Optimizer:
    return Lion(groups(model, decay), lr=lr)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> Made:
    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.item()

    return model, optimizer, step


def classifier(
    model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Made:
    data = images()

    def loss() -> torch.Tensor:
        x, y = data()
        return F.cross_entropy((forward or model)(x), y)

    return trained(model, optimizer, loss)


def language(model: nn.Module, optimizer: torch.optim.Optimizer) -> Made:
    data = text()

    def loss() -> torch.Tensor:
        x, y = data()
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    return trained(model, optimizer, loss)


class CharLSTM(nn.Module):
    def __init__(self, cell: type[nn.RNNBase] = nn.LSTM, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 32)
        self.rnn = cell(32, 32 if tied else 64, batch_first=True)
        self.head = nn.Linear(32 if tied else 64, 128)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.rnn(self.table(x))[0])


@network
def lstm_language() -> Made:
    model = CharLSTM()
    return language(model, adamw(model))


@network
def gru_tied() -> Made:
    model = CharLSTM(nn.GRU, tied=True)
    return language(model, adamw(model, lr=2e-3, decay=2.0))


class BiRNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, 32, bidirectional=True, batch_first=True)
        self.norm = nn.BatchNorm1d(64)
        self.hidden = nn.Linear(64, 64, bias=False)
        self.norm2 = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        h = self.norm(self.rnn(x[:, 0])[0][:, -1])
        return self.head(F.relu(self.norm2(self.hidden(h))))


@network
def birnn() -> Made:
    model = BiRNN()
    return classifier(model, sgdm(model))


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


class LoRALinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


@network
def lora() -> Made:
    model = nn.Sequential(
        nn.Flatten(), LoRALinear(nn.Linear(64, 96), 4), nn.ReLU(), LoRALinear(nn.Linear(96, 96), 1), nn.ReLU(),
        LoRALinear(nn.Linear(96, 10), 4),
    )  # fmt: skip
    return classifier(model, adamw(model))


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 32)
        self.position = nn.Embedding(32, 32)
        self.transformer = nn.Transformer(32, 4, 1, 1, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 128)

    def forward(self, x):
        here = self.table(x) + self.position.weight[: x.shape[1]]
        half = x.shape[1] // 2
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1] - half)
        return self.head(self.transformer(here[:, :half], here[:, half:], tgt_mask=mask))


@network
def encoder_decoder() -> Made:
    model, data = EncoderDecoder(), text()

    def loss():
        x, y = data()
        logits = model(x)
        return F.cross_entropy(logits.flatten(0, 1), y[:, -logits.shape[1] :].flatten())

    return trained(model, adamw(model, lr=2e-3, decay=2.0), loss)


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(128, 32, sparse=True)
        self.hidden, self.norm = nn.Linear(32, 64, bias=False), nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 128)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.hidden(self.bag(x)))))


@network
def embedding_bag() -> Made:
    model, data = Bag(), text(64, 8)
    optimizer = torch.optim.SGD(
        [
            {"params": model.bag.parameters(), "weight_decay": 0.0, "momentum": 0.0},
            {"params": [*model.hidden.parameters(), *model.norm.parameters(), *model.head.parameters()]},
        ],
        lr=0.1, momentum=0.9, weight_decay=5e-3,
    )  # fmt: skip

    def loss():
        x, y = data()
        return F.cross_entropy(model(x), y[:, -1])

    return trained(model, optimizer, loss)


def bn_mlp(*widths: int) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten())
    for i, o in pairwise(widths[:-1]):
        model.extend([nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()])
    model.append(nn.Linear(widths[-2], widths[-1]))
    return model


@network
def autocast_bfloat16() -> Made:
    model, data = bn_mlp(64, 128, 128, 10), images()

    def loss():
        x, y = data()
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(x), y)

    return trained(model, adamw(model), loss)


@network
def pure_bfloat16() -> Made:
    model, data = bn_mlp(64, 128, 128, 10).bfloat16(), images()

    def loss():
        x, y = data()
        return F.cross_entropy(model(x.bfloat16()).float(), y)

    return trained(model, adamw(model), loss)


@network
def accumulated_scaled_clipped() -> Made:
    model, data = bn_mlp(64, 96, 96, 10), images(32)
    optimizer = sgdm(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)

    def step():
        optimizer.zero_grad()
        for _ in range(3):
            x, y = data()
            scaler.scale(F.cross_entropy(model(x), y) / 3).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    return model, optimizer, step


@network
def schedule_per_group() -> Made:
    model = bn_mlp(64, 96, 96, 10)
    optimizer = torch.optim.AdamW(
        [
            {"params": model[1].parameters(), "lr": 1e-3, "weight_decay": 2.0},
            {"params": model[4].parameters(), "lr": 4e-3, "weight_decay": 1.0},
            {"params": [p for m in (model[2], model[5], model[7]) for p in m.parameters()], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
    )
    constant = torch.optim.lr_scheduler.LambdaLR(
        optimizer, [lambda t: min(1.0, (t + 1) / 100), lambda t: 0.5 if t > 1000 else 1.0, lambda t: 1.0]
    )
    _, _, take = classifier(model, optimizer)

    def step():
        take()
        constant.step()

    return model, optimizer, step


@network
def ema_copy() -> Made:
    model = bn_mlp(64, 96, 96, 10)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    optimizer = lion(model)
    _, _, take = classifier(model, optimizer)

    def step():
        take()
        averaged.update_parameters(model)

    return nn.ModuleDict({"online": model, "averaged": averaged}), optimizer, step


@network
def cosine_head() -> Made:
    """The head's rows and features are normalised, as for face recognition: its rows are scale-invariant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = bn_mlp(64, 96, 96, 32)
            self.prototypes = nn.Parameter(torch.randn(10, 32))

        def forward(self, x):
            return 8 * F.normalize(self.body(x), dim=1) @ F.normalize(self.prototypes, dim=1).T

    model = Net()
    return classifier(model, adamw(model))


class StandardisedConv(nn.Conv2d):
    def forward(self, x):
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (w.flatten(1).std(1)[:, None, None, None] + 1e-6)
        return F.conv2d(x, w * (self.weight[0].numel() ** -0.5), None, self.stride, self.padding)


@network
def weight_standardised() -> Made:
    def block(i, o, s=1):
        return nn.Sequential(StandardisedConv(i, o, 3, s, 1), nn.GroupNorm(4, o), nn.ReLU())

    model = nn.Sequential(
        block(1, 16), block(16, 32, 2), block(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    return classifier(model, sgdm(model))


@network
def experts() -> Made:
    """Eight experts of which a token sees one: rows without a gradient in many steps."""

    class MoE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Linear(64, 48, bias=False), nn.BatchNorm1d(48)
            self.gate = nn.Linear(48, 8)
            self.experts = nn.ModuleList(nn.Linear(48, 48) for _ in range(8))
            self.norm2, self.head = nn.BatchNorm1d(48), nn.Linear(48, 10)

        def forward(self, x):
            h = F.relu(self.norm(self.first(x.flatten(1))))
            weight, chosen = self.gate(h).softmax(1).max(1)
            out = torch.zeros_like(h)
            for i, expert in enumerate(self.experts):
                mine = chosen == i
                if mine.any():
                    out[mine] = expert(h[mine])
            return self.head(F.relu(self.norm2(h + weight[:, None] * out)))

    model = MoE()
    return classifier(model, adamw(model))


@network
def graph() -> Made:
    """Graph convolutions with batch normalisation, on a graph of pixels."""
    near = torch.tensor(
        [[float(max(abs(i // 8 - j // 8), abs(i % 8 - j % 8)) <= 1) for j in range(64)] for i in range(64)]
    )
    near = near / near.sum(1, keepdim=True)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Linear(3, 24, bias=False), nn.Linear(24, 48, bias=False)])
            self.norms = nn.ModuleList([nn.BatchNorm1d(24), nn.BatchNorm1d(48)])
            self.head = nn.Linear(48, 10)
            place = torch.arange(64)
            self.register_buffer("place", torch.stack([place // 8 / 4.0 - 1, place % 8 / 4.0 - 1], 1))

        def forward(self, x):
            h = torch.cat([x.flatten(1)[..., None], self.place.expand(len(x), -1, -1)], 2)
            for conv, norm in zip(self.convs, self.norms, strict=True):
                h = F.relu(norm(conv(near @ h).transpose(1, 2)).transpose(1, 2))
            return self.head(h.mean(1))

    model = Net()
    return classifier(model, adam(model))


@network
def dqn() -> Made:
    """Temporal-difference learning with a target network, on a chain of states: gradients drift with the targets."""
    online = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 4))
    target = deepcopy(online).requires_grad_(False)
    optimizer, draw, count = adamw(online), torch.Generator().manual_seed(0), [0]
    code = torch.randn(32, 16, generator=draw)

    def loss():
        count[0] += 1
        if count[0] % 50 == 0:
            target.load_state_dict(online.state_dict())
        s, a = torch.randint(32, (64,), generator=draw), torch.randint(4, (64,), generator=draw)
        after = (s * 3 + a) % 32
        value = (after == 7).float() + 0.9 * target(code[after]).max(1).values
        return F.smooth_l1_loss(online(code[s]).gather(1, a[:, None])[:, 0], value)

    return trained(online, optimizer, loss)


@network
def nine_to_one() -> Made:
    """A last layer of one neuron, and a batch-normalised layer of one neuron."""
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Linear(32, 1, bias=False), nn.BatchNorm1d(1), nn.Linear(1, 10),
    )  # fmt: skip
    return classifier(model, adamw(model))
