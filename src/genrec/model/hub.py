"""Download and upload of run folders on the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from genrec.errors import RunError
from genrec.files import follow_umask
from genrec.model.saving import RUN_FILES

BESIDE = ("metrics.json", "report.html", "report.md", "README.md")
"""Files that evaluation adds to a run folder. The model in memory cannot write them again."""
OLDER = (*RUN_FILES, *(f"{name}/*" for name in RUN_FILES))
"""Patterns of an older run's files, which are deleted if this one does not have them."""
IGNORED = ("checkpoints/*", "logs/*", "*.partial")
"""Patterns of files that are not downloaded."""


def local_folder(
    folder: str | Path, *, revision: str | None = None, token: str | None = None
) -> Path:
    """Return the path of a run folder, after downloading it from the Hub if necessary.

    Args:
        folder: a local folder, or ``"organisation/name"`` on the Hub.
        revision: branch, tag or commit on the Hub.
        token: access token for a private repository.

    Raises:
        RunError: There is neither a folder nor a repository of that name, or ``revision`` is given
            for a local folder.
    """
    path = Path(folder)
    if path.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(folder)):
        if revision is not None:
            raise RunError(
                f"{folder}: this is a local folder, but revision={revision!r} works only for runs "
                "on the Hugging Face Hub; omit it."
            )
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            str(folder), revision=revision, token=token, ignore_patterns=list(IGNORED)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(
            f"{folder}: there is no such folder, and no run of that name could be downloaded from "
            f"the Hugging Face Hub ({reason}). Check the name and the revision, and for a private "
            "run the token."
        ) from None
    return Path(found)


def push(
    repo_id: str,
    write: Callable[[Path], None],
    *,
    beside: Path | None,
    private: bool,
    token: str | None,
    commit_message: str,
) -> str:
    """Write a run into a temporary folder and upload it in the place of an older one.

    Args:
        repo_id: ``"organisation/name"`` on the Hub.
        write: writes the run into an empty folder.
        beside: a run folder whose metrics and reports are uploaded too, or ``None``.
        private: create a private repository.
        token: access token.
        commit_message: message of the commit.

    Returns:
        The URL of the commit.

    Raises:
        RunError: The Hub refuses the upload.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="genrec-") as work:
        write(Path(work))
        for name in BESIDE:
            if beside is not None and (beside / name).is_file():
                shutil.copyfile(beside / name, Path(work) / name)
        follow_umask(Path(work))
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id,
                folder_path=work,
                commit_message=commit_message,
                delete_patterns=list(OLDER),
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise RunError(
                f"{repo_id}: the Hugging Face Hub refused the upload ({reason}). Check the name, "
                "and log in with `hf auth login` or give token=…."
            ) from None
    return str(done.commit_url)
