"""What `benchmarks/serve.py` compares with: FastAPI and PyTorch without batches, on one uvicorn, with the same answers.

A request decodes its image, computes it alone in a thread, and is answered: what a first server of one's own would do.
"""

import os

import torch
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from rayprob.predict.answering import Answering
from rayprob.predict.images import ImageBytes
from rayprob.predict.job import load_predictor, tensors_of
from rayprob.predict.question import Question
from rayprob.predict.reading import load


def make() -> FastAPI:
    """Return the application for the bundle that the environment variable BUNDLE names."""
    torch.set_num_threads(int(os.environ["THREADS"]))
    predictor = load_predictor([os.environ["BUNDLE"]])
    answering = Answering(predictor, Question.of(predictor.bundle))
    app = FastAPI()

    def answer(content: bytes) -> dict[str, object]:
        loaded = load(ImageBytes("image", content), predictor.inputs)
        (outcome,) = answering.outcomes([loaded], predictor.forecast(tensors_of([loaded], predictor)))
        return outcome.to_dict()

    @app.post("/v1/predict")
    async def predict(request: Request) -> dict[str, object]:
        return await run_in_threadpool(answer, await request.body())

    return app
