"""Reading again, at a recovery, what the journal says is read and somebody still needs."""

from __future__ import annotations

from collections.abc import Sequence

from verifier.core.engine import Engine, Slice
from verifier.core.events import Source
from verifier.stream.care import SET_ASIDE, Care
from verifier.stream.codec import Codec, Record
from verifier.stream.outputs import Outputs
from verifier.stream.ports import Records
from verifier.stream.turns import Turns


class Rereading:
    """Feeds records again, of which nothing is counted a second time.

    A record that made the code fail may be among them, set aside by an earlier owner of the partition: it is set aside
    here, too, and published as rejected, which as a rule repeats what is published.
    """

    def __init__(
        self, partition: int, codec: Codec, outputs: Outputs, records: Records, care: Care, turns: Turns
    ) -> None:
        self._partition = partition
        self._codec = codec
        self._outputs = outputs
        self._records = records
        self._care = care
        self._turns = turns

    async def feed(self, engine: Engine, source: Source, start: int, end: int) -> None:
        """Feed the records of [start, end)."""
        async for records in self._records.read(source, self._partition, start, end):
            async for part in self._turns.slices(records):
                for piece in self._care.pieces(source, part):
                    self._feed(engine, source, piece)

    def _feed(self, engine: Engine, source: Source, piece: Sequence[Record]) -> None:
        self._care.feeding = source, piece
        seen, rejections = self._care.decode(self._codec, source, self._partition, piece, ())
        for rejection in rejections:
            if rejection.reason == SET_ASIDE:
                [record] = (record for record in piece if record.offset == rejection.offset)
                self._outputs.reject(self._partition, record, rejection)
        engine.refeed(Slice(source=source, start=piece[0].offset, end=piece[-1].offset + 1, seen=seen))
        self._care.feeding = None
