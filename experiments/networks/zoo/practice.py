"""What training scripts do besides: precision, schedules, adapters, copies, and losses of another kind."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F

from experiments.networks.zoo.parts import (
    Made,
    adam,
    adamw,
    bn_mlp,
    classifier,
    images,
    lion,
    network,
    sgdm,
    trained,
)  # fmt: skip


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
