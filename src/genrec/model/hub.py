"""Run folders on the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from genrec.errors import RunError
from genrec.files import follow_umask

BESIDE = ("metrics.json", "report.html", "report.md", "README.md")
"""Files of a run folder that evaluation has added; the model itself does not hold them."""
IGNORED = ("checkpoints/*", "logs/*", "*.partial")


def local_folder(
    folder: str | Path, *, revision: str | None = None, token: str | None = None
) -> Path:
    """The folder itself if it is there, else the run of that name, fetched from the Hub.

    Raises:
        RunError: there is neither a folder nor a repository of that name.
    """
    path = Path(folder)
    if path.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(folder)):
        if revision is not None:
            raise RunError(f"{folder}: revision={revision!r} is for runs on the Hub.")
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
            f"{folder}: no such folder, and the Hugging Face Hub gives no run of that name "
            f"({reason}). Check the name and the revision, and for a private run the token."
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
    """Write a run into a temporary folder and upload it.

    Args:
        beside: the run folder whose metrics and reports go with it, if there is one.

    Returns:
        The address of the commit.

    Raises:
        RunError: the Hub refuses.
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
                repo_id=repo_id, folder_path=work, commit_message=commit_message
            )
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise RunError(
                f"{repo_id}: the Hugging Face Hub refuses the upload ({reason}). Check the name, "
                "and log in with `hf auth login` or give token=…."
            ) from None
    return str(done.commit_url)
