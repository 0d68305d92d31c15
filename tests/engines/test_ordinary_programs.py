"""All walls together leave programs what they need every day."""

import asyncio
from pathlib import Path

from sandpost.model.limits import Limits
from support.engine_bed import Bed, MiB

PROGRAM = Path(__file__).with_name("ordinary.js").read_text()


def test_programs_do_what_they_do_every_day(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make(limits=Limits(memory=512 * MiB))
        assert await asyncio.to_thread(box.call, PROGRAM, patience=60.0) == {}

    asyncio.run(body())
