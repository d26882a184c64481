"""Find files that two settings name. Links are followed, and names that differ only in case are the same."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from llmbatch_assets.domain import file_uses
from llmbatch_assets.domain.file_uses import FileUse
from llmbatch_assets.domain.layout import Layout

# The resolved name of a path, or the device and inode of an existing file.
_Place = str | tuple[int, int]


class _Places:
    """Resolves paths in one project folder. Each folder is resolved once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, str] = {}
        self._places: dict[PurePosixPath, frozenset[_Place]] = {}

    def of(self, path: PurePosixPath) -> frozenset[_Place]:
        """Return everything that identifies the file at a path, whether it exists or not."""
        if path not in self._places:
            self._places[path] = self._find(path)
        return self._places[path]

    def _find(self, path: PurePosixPath) -> frozenset[_Place]:
        found = self._found(path)
        # A broken link is set aside when the file is written, so nothing is written where it leads.
        is_followed = found is not None and (self._root / path).is_symlink()
        name = _folded(os.path.realpath(self._root / path)) if is_followed else self.name(path)
        if found is None or not stat.S_ISREG(found.st_mode):
            return frozenset([name])
        # Two hard links are the same file under different names.
        return frozenset([name, (found.st_dev, found.st_ino)])

    def name(self, path: PurePosixPath) -> str:
        """Return the resolved name of a path, in a form that is equal for names that differ only in case."""
        folder, name = os.path.split(os.path.normpath(self._root / path))
        if folder not in self._folders:
            self._folders[folder] = _folded(os.path.realpath(folder))
        return f"{self._folders[folder]}{os.sep}{_folded(name)}"

    def kind(self, path: PurePosixPath) -> str:
        found = self._found(path)
        if found is None:
            return ""
        return "folder" if stat.S_ISDIR(found.st_mode) else "file"

    def file_above(self, path: PurePosixPath) -> str:
        """Return the nearest existing path above, if it is a file."""
        above = next((one for one in path.parents if one.name and self.kind(one)), None)
        return str(above) if above is not None and self.kind(above) == "file" else ""

    def _found(self, path: PurePosixPath) -> os.stat_result | None:
        try:
            return (self._root / path).stat()
        except (OSError, ValueError):
            return None


def _folded(name: str) -> str:
    # Some file systems ignore case, or keep accents in another form.
    return unicodedata.normalize("NFC", name).casefold()


def find_conflicts(root: Path, config: PurePosixPath, layout: Layout) -> list[str]:
    """Return a message for each file of a batch that its runs would overwrite, and each path that cannot be written."""
    places = _Places(root)
    read, named = list(file_uses.user_files(layout, config)), list(file_uses.named_files(layout))
    module, artifacts = file_uses.schema_module(layout), list(file_uses.artifact_files(layout))
    folders = list(file_uses.named_folders(layout))
    by_key = [use for use in read if use.key]
    found = [
        *_same_files(places, [*read, module, *artifacts], named),
        *_same_files(places, [*read, *artifacts], [module]),
        *_same_files(places, artifacts, by_key),
        *_also_folders(places, named, [*read, module, *artifacts], folders),
        *_inside(places, [*named, module, *by_key], list(file_uses.artifact_folders(layout))),
        *_beside_configurations(places, named, config),
        *_unwritable(places, named, folders),
        # A folder in the default place of a file is set aside when the file is written.
        *(file_uses.not_a_file(use) for use in named if use.is_named_in(layout) and places.kind(use.path) == "folder"),
    ]
    return _first_of_each_key(found)


def _first_of_each_key(messages: Iterable[str]) -> list[str]:
    """Keep one message for each key: the others follow from it, such as a conflict of an export's archived name."""
    by_key: dict[str, str] = {}
    for message in messages:
        by_key.setdefault(message.partition(": ")[0], message)
    return list(by_key.values())


def _same_files(places: _Places, others: Iterable[FileUse], named: Iterable[FileUse]) -> Iterator[str]:
    """Yield the named files that are also among the others, or named twice."""
    seen = _by_place(places, others)
    for use in named:
        known = _at(places, use, seen)
        if known is None:
            seen |= dict.fromkeys(places.of(use.path), use)
        elif use.key != known.key:
            yield file_uses.same_file(use, known)


def _by_place(places: _Places, uses: Iterable[FileUse]) -> dict[_Place, FileUse]:
    found: dict[_Place, FileUse] = {}
    for use in uses:
        for place in places.of(use.path):
            found.setdefault(place, use)
    return found


def _at(places: _Places, use: FileUse, seen: dict[_Place, FileUse]) -> FileUse | None:
    return next((seen[place] for place in sorted(places.of(use.path), key=str) if place in seen), None)


def _beside_configurations(places: _Places, named: Iterable[FileUse], config: PurePosixPath) -> Iterator[str]:
    """Yield the files in the folder of configurations that have their file extension."""
    folder = places.name(config.parent)
    for use in named:
        if use.path.suffix.lower() == ".yaml" and places.name(use.path.parent) == folder:
            yield file_uses.beside_configurations(use, config)


def _also_folders(places: _Places, named: list[FileUse], files: list[FileUse], folders: list[FileUse]) -> Iterator[str]:
    """Yield the files whose path is that of a folder in use."""
    names = {use: places.name(use.path) for use in [*named, *files, *folders]}
    for use in named:
        inner = next((one for one in names if names[one].startswith(names[use] + os.sep) and one.key != use.key), None)
        folder = next((one for one in folders if names[one] == names[use]), None)
        if folder or inner:
            yield file_uses.also_a_folder(use, folder or inner or use)


def _inside(places: _Places, files: Iterable[FileUse], folders: Iterable[FileUse]) -> Iterator[str]:
    for file in files:
        if folder := next((one for one in folders if _is_within(places, file, one)), None):
            yield file_uses.inside_artifacts(file, folder)


def _is_within(places: _Places, inner: FileUse, outer: FileUse) -> bool:
    names = [place for place in places.of(inner.path) if isinstance(place, str)]
    return any((name + os.sep).startswith(places.name(outer.path) + os.sep) for name in names)


def _unwritable(places: _Places, files: list[FileUse], folders: list[FileUse]) -> Iterator[str]:
    blocking = set[str]()
    for use in (*folders, *files):
        is_folder = use in folders
        in_the_way = str(use.path) if is_folder and places.kind(use.path) == "file" else places.file_above(use.path)
        if in_the_way and in_the_way not in blocking:
            # The paths below are blocked by the same file.
            blocking.add(in_the_way)
            yield file_uses.not_a_folder(use, in_the_way)


class ConfiguredPaths(NamedTuple):
    """The configuration file of a batch, relative to the project, and the paths that it names."""

    config: PurePosixPath
    layout: Layout


def find_shared(root: Path, own: ConfiguredPaths, others: Iterable[ConfiguredPaths]) -> list[str]:
    """Return a message for each path that a batch and one of the others write."""
    places, found = _Places(root), list[str]()
    for other in others:
        folders = [*_shared_folder(places, own.layout, other.layout, other.config)]
        found += folders or _shared_files(places, own, other)
    return found


def _shared_folder(places: _Places, own: Layout, other: Layout, config: PurePosixPath) -> Iterator[str]:
    """Yield the folder of artifacts that is the same, or that is in the cache folder of the other batch."""
    mine, theirs = (list(file_uses.artifact_roots(one)) for one in (own, other))
    for use, their_use in zip(mine, theirs, strict=True):
        if places.name(use.path) == places.name(their_use.path):
            yield file_uses.shared(use, their_use, str(config))
            return
    # Default folders of one batch may be in those of another.
    nested = [
        *((use, theirs[-1]) for use in mine if use.is_named_in(own) and _is_within(places, use, theirs[-1])),
        *((mine[-1], use) for use in theirs if use.is_named_in(other) and _is_within(places, use, mine[-1])),
    ]
    for use, their_use in nested[:1]:
        yield file_uses.shared(use, their_use, str(config), is_inside=True)


def _shared_files(places: _Places, one: ConfiguredPaths, another: ConfiguredPaths) -> Iterator[str]:
    (own_config, own), (config, other) = one, another
    module, their_module = file_uses.schema_module(own), file_uses.schema_module(other)
    has_same_module = bool(places.of(module.path) & places.of(their_module.path))
    if has_same_module and own.parameters.llm_schema.force_regenerate and other.parameters.llm_schema.force_regenerate:
        yield file_uses.shared(module, their_module, str(config))
    # The text of the same module is the same.
    ignored = {"llm_schema.txt_path"} if has_same_module else set()
    mine, theirs = ([use for use in file_uses.named_files(one) if use.key not in ignored] for one in (own, other))
    # The table of one batch may be an export of another.
    my_own, their_own = (
        [use for use in file_uses.user_files(*paths) if use.key != "input.path"]
        for paths in ((own, own_config), (other, config))
    )
    found = [
        *_shared_with(places, mine, [*theirs, *file_uses.artifact_files(other), their_module, *their_own]),
        *_shared_with(places, [*file_uses.artifact_files(own), module, *my_own], theirs),
    ]
    yield from _first_of_each_key(file_uses.shared(use, their_use, str(config)) for use, their_use in found)


def _shared_with(
    places: _Places, uses: Iterable[FileUse], others: Iterable[FileUse]
) -> Iterator[tuple[FileUse, FileUse]]:
    seen = _by_place(places, others)
    for use in uses:
        if known := _at(places, use, seen):
            yield use, known
