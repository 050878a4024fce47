"""The web application: a run folder behind one endpoint. It is a value; a server runs it."""

from __future__ import annotations

import threading
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from genrec._version import __version__
from genrec.errors import GenRecError
from genrec.model import GenRec
from genrec.recommender import Recommendation

MOST_ITEMS = 1000


class RecommendRequest(BaseModel):
    """What to recommend for."""

    model_config = ConfigDict(extra="forbid")

    history: list[Annotated[str, Field(max_length=1000)]] = Field(
        max_length=MOST_ITEMS, description="titles or item ids, oldest first"
    )
    k: int = Field(10, ge=1, le=MOST_ITEMS)
    exclude_seen: bool = True


def create_app(model: GenRec) -> FastAPI:
    """An application that answers from one loaded model, one request at a time."""
    app = FastAPI(title="GenRec", version=__version__)
    busy = threading.Lock()  # the model's cores are the bottleneck: requests wait in line

    @app.get("/livez")
    def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/run")
    def run() -> dict[str, Any]:
        """What was trained how, without where its data lie."""
        data = {k: v for k, v in model.info.get("data", {}).items() if k != "source"}
        return {**model.info, "data": data}

    @app.post("/v1/recommend")
    def recommend(request: RecommendRequest) -> list[Recommendation]:
        with busy:
            return model.recommend(request.history, request.k, exclude_seen=request.exclude_seen)

    @app.exception_handler(GenRecError)
    def wrong_input(request: Request, error: GenRecError) -> JSONResponse:
        problem = {"type": "about:blank", "title": "Wrong input", "status": 422}
        return JSONResponse(
            {**problem, "detail": str(error)}, 422, media_type="application/problem+json"
        )

    return app
