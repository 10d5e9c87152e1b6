"""Is what a drive holds about what it held when the store was closed? Asked once, when the store is opened.

A drive may have come back with older content while nobody looked. Then volumes are missing on it, or shorter than what
the metadata knows of them: a look at lengths, in the background, and such a drive is verified needle by needle.
"""

from __future__ import annotations

from ciaosfs.base.errors import CiaosError
from ciaosfs.fs.parts import Parts
from ciaosfs.meta.placements import volumes_of_shards
from ciaosfs.meta.reports import end_in_volume


async def drives_lacking_bytes(parts: Parts) -> set[int]:
    """The drives that are there and lack a volume, or the end of one, in which something is that counts."""

    def look() -> set[int]:
        lacking: set[int] = set()
        with parts.meta.reader() as reader:
            volumes = volumes_of_shards(reader)
        for volume in volumes:
            if volume.drive is None or volume.drive in lacking or not parts.chunks.is_there(volume.drive):
                continue
            with parts.meta.reader() as reader:
                end = end_in_volume(reader, volume.volume_id)
            try:
                with parts.chunks.files.reading(volume.volume_id) as (_, file):
                    is_short = file.size() < end
            except (CiaosError, OSError):
                is_short = parts.chunks.is_there(volume.drive)
            if is_short:
                lacking.add(volume.drive)
        return lacking

    return await parts.workers.run(look)
