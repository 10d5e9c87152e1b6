"""Which files a lost stripe hits, and by which paths people know them."""

from __future__ import annotations

from ciaosfs.meta.inodes import ROOT_INO
from ciaosfs.meta.metadata import Metadata
from ciaosfs.meta.reports import files_of_stripes, paths_of
from tests.unit.meta.support import add_directory, add_file, commit, make_stripe, raw


def test_files_of_lost_stripes_with_all_their_paths(meta: Metadata) -> None:
    outer = add_directory(meta, b"outer")
    inner = add_directory(meta, b"inner", outer)
    deep, top, unhurt = (
        add_file(meta, b"deep", 50, inner),
        add_file(meta, b"top", 50),
        add_file(meta, b"unhurt", 50),
    )
    meta.dentries.insert(outer, b"link to deep", deep)
    for stripe_id in (1, 2, 3):
        meta.stripes.insert(make_stripe(stripe_id))
    meta.extents.replace(deep, 0, 20, [raw(0, 10, 1), raw(10, 10, 3)])
    meta.extents.replace(top, 0, 20, [raw(0, 10, 2)])
    meta.extents.replace(unhurt, 0, 20, [raw(0, 10, 3, 50)])
    commit(meta)
    with meta.reader() as reader:
        hit = files_of_stripes(reader, [1, 2, 4711])
        assert hit == {deep, top}
        assert paths_of(reader, hit) == {
            deep: [b"/outer/inner/deep", b"/outer/link to deep"],
            top: [b"/top"],
        }
        assert paths_of(reader, [ROOT_INO, inner, 4711]) == {
            ROOT_INO: [b"/"],
            inner: [b"/outer/inner"],
            4711: [],
        }


def test_a_path_through_a_damaged_tree_is_left_out(meta: Metadata) -> None:
    one, two = add_directory(meta, b"one"), add_directory(meta, b"two")
    lost = add_file(meta, b"lost", parent=4711)
    circling = add_file(meta, b"circling", parent=one)
    for ino, parent, name in ((one, two, b"one"), (two, one, b"two")):
        meta.dentries.remove(ROOT_INO, name)
        meta.dentries.insert(parent, name, ino)
        inode = meta.inodes.load(ino)
        assert inode is not None
        meta.inodes.update(inode._replace(parent=parent))
    commit(meta)
    with meta.reader() as reader:
        assert paths_of(reader, [lost, circling]) == {lost: [], circling: []}
