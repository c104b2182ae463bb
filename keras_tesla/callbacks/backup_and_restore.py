"""BackupAndRestore: training continues after a kill at any moment."""

import os
import pathlib
import shutil
import tempfile

import keras


class BackupAndRestore(keras.callbacks.Callback):
    """Keras' callback of this name, with backups that are always complete.

    `keras.callbacks.BackupAndRestore` writes weights and epoch in place and deletes one after the
    other at the end. A kill in between leaves weights that do not load, the epoch of other
    weights or, worst, the last epoch without weights: the next run then ends at once, untrained
    and without an error. Here each epoch gets its own folder, which appears in one rename.

    It belongs after all callbacks with a state, such as `TaskWiseEarlyStopping`.

    Args:
        backup_dir: Folder for this run's backups only; removed when training ends.

    Raises:
        ValueError: At construction: an empty `backup_dir`.

    Example:

        callbacks = [kt.callbacks.TaskWiseEarlyStopping(), kt.callbacks.BackupAndRestore("backup")]
        tesla.fit(x, y, epochs=50, callbacks=callbacks)  # again after a kill, with the same epochs
    """

    def __init__(self, backup_dir):
        super().__init__()
        if not os.fspath(backup_dir):
            raise ValueError("`backup_dir` must name a folder. Received: ''")
        self._directory = pathlib.Path(backup_dir).absolute()

    def on_train_begin(self, logs=None):
        backups = self._backups()
        if backups:
            self._keras(backups[-1]).on_train_begin()

    def on_epoch_end(self, epoch, logs=None):
        self._directory.mkdir(parents=True, exist_ok=True)
        older = list(self._directory.iterdir())  # with what killed runs have left unfinished
        unfinished = pathlib.Path(tempfile.mkdtemp(prefix=".", dir=self._directory))
        self._keras(unfinished).on_epoch_end(epoch)
        whole = self._directory / f"epoch-{epoch + 1:09}"
        unfinished.rename(whole)
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def on_train_end(self, logs=None):
        if self._directory.exists():
            # It disappears in one step too, unless it is a mount or we may not change its parent.
            name, parent = self._directory.name, self._directory.parent
            try:
                gone = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
                self._directory.rename(gone)
            except OSError:
                gone = self._directory
            shutil.rmtree(gone)

    def _backups(self) -> list[pathlib.Path]:
        return sorted(self._directory.glob("epoch-*"))

    def _keras(self, directory):
        """Keras' callback, for the backup in one folder."""
        made = keras.callbacks.BackupAndRestore(str(directory))
        made.set_model(self.model)
        return made
