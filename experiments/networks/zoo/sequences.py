"""Networks that read text: recurrent, attending, sparse."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from experiments.networks.zoo.parts import (
    Made,
    adamw,
    classifier,
    language,
    network,
    sgdm,
    text,
    trained,
)  # fmt: skip


class CharLSTM(nn.Module):
    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM, tied: bool = False) -> None:
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
        [  # type: ignore[arg-type]
            {"params": model.bag.parameters(), "weight_decay": 0.0, "momentum": 0.0},
            {"params": [*model.hidden.parameters(), *model.norm.parameters(), *model.head.parameters()]},
        ],
        lr=0.1, momentum=0.9, weight_decay=5e-3,
    )  # fmt: skip

    def loss():
        x, y = data()
        return F.cross_entropy(model(x), y[:, -1])

    return trained(model, optimizer, loss)
