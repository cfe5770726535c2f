"""The rows of `load` as an IterableDataset of PyTorch. It is imported when it is used."""

from collections.abc import Iterator, Mapping
from typing import Any

from shardline.api.load import LoadedRows

try:
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError:
    # `LoadedRows.torch` refuses without torch, and every module can be imported without it.
    IterableDataset = object


class TorchRows(IterableDataset):  # type: ignore[misc]
    """Divides the rows among the workers of a DataLoader: each worker reads one part of them.

    `state_dict` and `load_state_dict` are those of the rows that this process reads. The StatefulDataLoader
    of torchdata calls them in each worker; a DataLoader without workers reads in the process itself.
    """

    def __init__(self, rows: LoadedRows) -> None:
        super().__init__()
        self._all = rows
        self._rows: LoadedRows | None = None

    def __len__(self) -> int:
        """How many rows an epoch has, in all workers together."""
        return len(self._all)

    @property
    def epoch(self) -> int:
        """The number of the epoch that this process reads, from 0 on."""
        return self._own().epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows of this worker."""
        return iter(self._own())

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration of this worker is."""
        return self._own().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was called, in the same worker of as many."""
        self._own().load_state_dict(state)

    def _own(self) -> LoadedRows:
        if self._rows is None:
            worker = get_worker_info()
            self._rows = self._all if worker is None else self._all.part(worker.id, worker.num_workers)
        return self._rows
