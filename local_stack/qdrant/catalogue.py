"""The collections of a data folder and the file that says which there are."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import orjson

from local_stack.qdrant.collection import Collection, require_free_space
from local_stack.qdrant.errors import (
    ApiError,
    Conflict,
    NotFound,
    ServiceError,
    StartupError,
    Unprocessable,
)
from local_stack.qdrant.folder import LOCK_NAME, lock_folder, write_atomically
from local_stack.qdrant.settings import Settings

FILE_NAME = "catalogue.json"
SHARDS_NAME = "collections"
FORMAT = "embedrack-qdrant-1"
OURS = frozenset({LOCK_NAME, FILE_NAME, FILE_NAME + ".new", SHARDS_NAME})

MAX_NAME_LENGTH = 255
FORBIDDEN_IN_NAMES = frozenset('<>:"/\\|?*\0') | {chr(code) for code in range(1, 32)}


class Catalogue:
    """All collections by name.

    A collection exists from the moment the catalogue file names it until the moment it does not:
    folders come before and go after, so a crash leaves at most a folder nobody names. Folders have
    names of their own making, so a collection's name never becomes a path.
    """

    def __init__(self, folder: Path) -> None:
        """Opens a data folder, or makes one where there is none or an empty one.

        Raises:
            StartupError: the folder is in use, not writable, full, damaged or not ours.
        """
        self._folder = folder
        self._shards = folder / SHARDS_NAME
        self._collections: dict[str, Collection] = {}
        try:
            self._open()
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartupError(f"cannot use the data folder {folder}: {reason}") from error
        except ServiceError as error:
            raise StartupError(f"cannot use the data folder {folder}: {error}") from error

    def all(self) -> list[Collection]:
        """The collections, oldest first."""
        return list(self._collections.values())

    def __contains__(self, name: str) -> bool:
        """Whether a collection exists."""
        return name in self._collections

    def get(self, name: str) -> Collection:
        """The collection of that name.

        Raises:
            NotFound: there is none.
        """
        collection = self._collections.get(name)
        if collection is None:
            raise NotFound.collection(name)
        return collection

    def create(self, name: str, settings: Settings) -> None:
        """Makes an empty collection that a crash does not undo.

        Raises:
            Conflict: there is one of that name.
            Unprocessable: the name is not allowed.
            ServiceError: the disk or the engine failed; nothing was made.
        """
        if name in self._collections:
            raise Conflict(f"Wrong input: Collection `{name}` already exists!")
        check_name(name)
        folder = self._shards / uuid.uuid4().hex
        try:
            collection = Collection.create(name, folder, settings)
            self._save({**self._collections, name: collection})
        except (OSError, ApiError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, ApiError):
                raise
            raise ServiceError(f"cannot create the collection: {error.strerror}") from error
        self._collections[name] = collection

    def change(self, name: str, settings: Settings) -> None:
        """Stores new settings of a collection.

        Raises:
            NotFound: there is no such collection.
            ServiceError: the disk failed; the old settings stand.
        """
        collection = self.get(name)
        former, collection.settings = collection.settings, settings
        try:
            self._save(self._collections)
        except OSError as error:
            collection.settings = former
            raise ServiceError(f"cannot store the settings: {error.strerror}") from error

    def drop(self, name: str) -> Path | None:
        """Forgets a collection. Returns its folder, to be deleted, or None where there was none.

        Raises:
            ServiceError: the disk failed; the collection is still there.
        """
        if name not in self._collections:
            return None
        rest = {key: value for key, value in self._collections.items() if key != name}
        try:
            self._save(rest)
        except OSError as error:
            raise ServiceError(f"cannot delete the collection: {error.strerror}") from error
        collection, self._collections = self._collections[name], rest
        collection.close()
        return collection.folder

    def close(self) -> None:
        """Flushes and closes every collection and frees the folder.

        Raises:
            ServiceError: a flush failed; what it would have written is in the engine's log.
        """
        failure: ServiceError | None = None
        for collection in self.all():
            try:
                collection.flush()
                collection.close()
            except ServiceError as error:
                failure = error
        self._lock.close()
        if failure is not None:
            raise failure

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._refuse_foreign()
        self._lock = lock_folder(self._folder)
        try:
            require_free_space(self._folder)
            self._shards.mkdir(exist_ok=True)
            if (self._folder / FILE_NAME).exists():
                self._load()
            else:
                self._save({})
            self._remove_unnamed()
        except BaseException:
            self._lock.close()
            raise

    def _refuse_foreign(self) -> None:
        """A folder with files and without a catalogue of ours is somebody else's."""
        names = {entry.name for entry in self._folder.iterdir()}
        if FILE_NAME in names or names <= OURS:
            return
        raise StartupError(
            f"the data folder {self._folder} holds other files ({min(names - OURS)}) "
            "and is not one of ours"
        )

    def _load(self) -> None:
        try:
            content = orjson.loads((self._folder / FILE_NAME).read_bytes())
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
            entries = dict(content["collections"])
        except (ValueError, KeyError, TypeError) as error:
            raise StartupError(
                f"the catalogue of the data folder {self._folder} is damaged: {error}"
            ) from error
        for name, entry in entries.items():
            self._collections[name] = self._load_collection(name, entry)

    def _load_collection(self, name: str, entry: dict[str, Any]) -> Collection:
        try:
            return Collection.load(name, self._shards / entry["folder"], entry["settings"])
        except (ServiceError, ValueError, KeyError, TypeError) as error:
            raise StartupError(
                f"the collection {name} in the data folder {self._folder} is damaged: {error}"
            ) from error

    def _remove_unnamed(self) -> None:
        """Deletes the folders of collections that a crash kept from being made or deleted."""
        named = {collection.folder.name for collection in self.all()}
        for entry in self._shards.iterdir():
            if entry.name not in named:
                shutil.rmtree(entry)

    def _save(self, collections: dict[str, Collection]) -> None:
        entries = {
            name: {"folder": collection.folder.name, "settings": collection.settings}
            for name, collection in collections.items()
        }
        content = {"format": FORMAT, "collections": entries}
        write_atomically(
            self._folder / FILE_NAME, orjson.dumps(content, option=orjson.OPT_INDENT_2)
        )


def check_name(name: str) -> None:
    """Raises Unprocessable where a collection may not have that name."""
    if not 1 <= len(name.encode(errors="replace")) <= MAX_NAME_LENGTH:
        reason = f"collection name must have 1 to {MAX_NAME_LENGTH} bytes"
    elif name in {".", ".."}:
        reason = f'collection name cannot be "{name}"'
    else:
        wrong = next((symbol for symbol in name if symbol in FORBIDDEN_IN_NAMES), None)
        if wrong is None:
            return
        reason = f'collection name cannot contain "{wrong}" char'
    raise Unprocessable(f"Validation error in path parameters: [collection_name: {reason}]")
