"""The naive way to train the paper's model, which `bench_train.py` compares ours with.

It keeps to what people write: each video read from HDF5 when its turn comes, packed sequences,
`nn.GRU` and Adam as they come.
"""

import h5py
import torch
from features import DIM
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

BATCH_SIZE = 8

Item = tuple[Tensor, float]
NaiveBatch = tuple[Tensor, Tensor, Tensor]


class NaiveVideos(Dataset[Item]):
    """One dataset a video, read when asked for. The file stays open, which is kind to it."""

    def __init__(self, file: h5py.File, scores: dict[str, float]) -> None:
        self.file, self.scores = file, list(scores.items())

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> Item:
        name, score = self.scores[index]
        frames = torch.from_numpy(self.file[name][()]).float()
        return frames[torch.randperm(len(frames))], score


class NaiveModel(nn.Module):
    """The paper's Bi-GRU models as one writes them down; parameters in our order."""

    def __init__(self, aggregator: str = "bigru", head: str = "mlp") -> None:
        super().__init__()
        self.gru = nn.GRU(DIM, 64, 6, batch_first=True, bidirectional=True, dropout=0.2)
        self.weight = nn.Linear(128, 1) if aggregator == "bigru" else None
        width = DIM if aggregator == "bigru" else 128
        layers: list[nn.Module] = [nn.Linear(width, 1)]
        if head == "mlp":
            layers = [nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 128), nn.ReLU()]
            layers.append(nn.Linear(128, 1))
        self.head = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        real = torch.arange(frames.shape[1]) < lengths.unsqueeze(1)
        states = self.dropout(states) * real.unsqueeze(-1)
        if self.weight is not None:
            states = self.weight(states) * real.unsqueeze(-1) * frames
        vector = states.sum(1) / lengths.unsqueeze(1)
        return torch.sigmoid(self.head(vector)).squeeze(-1)


def collate(items: list[Item]) -> NaiveBatch:
    frames, scores = zip(*items, strict=True)
    lengths = torch.tensor([len(video) for video in frames])
    return pad_sequence(list(frames), batch_first=True), lengths, torch.tensor(scores)


def naive_step(model: NaiveModel, optimizer: torch.optim.Optimizer, batch: NaiveBatch) -> float:
    frames, lengths, scores = batch
    optimizer.zero_grad()
    loss = l1_loss(model(frames, lengths), scores)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


def naive_epoch(videos: NaiveVideos, aggregator: str = "bigru", head: str = "mlp") -> float:
    model = NaiveModel(aggregator, head)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = DataLoader(videos, BATCH_SIZE, shuffle=True, collate_fn=collate)
    return sum(naive_step(model, optimizer, batch) for batch in loader)


def naive_scores(videos: NaiveVideos, aggregator: str, head: str) -> list[float]:
    model = NaiveModel(aggregator, head).eval()
    scores: list[float] = []
    with torch.inference_mode():
        for frames, lengths, _ in DataLoader(videos, 32, collate_fn=collate):
            scores += model(frames, lengths).tolist()
    return scores


def flops_per_frame(videos: NaiveVideos) -> float:
    """Count a naive step's products; packed, they are of real frames alone, as are ours."""
    model = NaiveModel()
    batch = collate([videos[i] for i in range(BATCH_SIZE)])
    with FlopCounterMode(display=False) as counter:
        naive_step(model, torch.optim.Adam(model.parameters()), batch)
    flops: int = counter.get_total_flops()
    return flops / int(batch[1].sum())
