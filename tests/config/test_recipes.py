"""Recipes of other papers: what they resolve to is what was published."""

from typing import Any

import pytest

from mirror.config import flat, plain
from mirror.config.compose import compose
from mirror.training.parts import check_parts

RECIPES: dict[str, dict[str, Any]] = {
    "simcse": {
        "loss.directions": "cross", "loss.form": "nt_xent", "loss.temperature": 0.05, "loss.mask_duplicates": False,
        "loss.margin": 0.0, "loss.focal": 0.0, "head._target_": "mirror.losses.heads.TanhHead", "model.pooling": "cls",
        "aug.dropout": 0.1, "aug.span_k": 0, "batch.size": 64, "batch.max_tokens": 32, "optim.lr": 3e-5,
        "optim.weight_decay": 0.0,
        "schedule._target_": "mirror.training.schedule.linear", "schedule.warmup_steps": 0, "trainer.max_epochs": 1,
        "select": "best", "eval.every": 125, "eval.validation": "stsb-dev",
    },
    "esimcse": {
        "aug._target_": "mirror.data.views.Repetition", "aug.share": 0.32, "aug.limit": 10, "aug.dropout": 0.1,
        "loss._target_": "mirror.losses.queue.Queue", "loss.size": 160, "loss.momentum": 0.995,
        "loss.temperature": 0.05, "loss.in_batch": True, "loss.key_dropout": False, "loss.mask_duplicates": False,
        "head._target_": "mirror.losses.heads.TanhHead", "model.pooling": "cls", "batch.size": 64,
        "batch.max_tokens": 32, "optim.lr": 3e-5, "select": "best", "eval.every": 125,
        "optim.weight_decay": 0.0,
    },
    "rankcse": {
        "loss._target_": "mirror.losses.ranking.Ranking", "loss.temperature": 0.05, "loss.share": 0.33,
        "loss.distillation": 1.0, "loss.consistency": 1.0, "loss.method": "listmle", "loss.mask_duplicates": False,
        "head._target_": "mirror.losses.heads.TanhHead", "model.pooling": "cls", "aug.dropout": 0.1, "aug.span_k": 0,
        "batch.size": 128, "batch.max_tokens": 32, "optim.lr": 3e-5, "select": "best", "eval.every": 125,
        "optim.weight_decay": 0.0,
    },
    "consert": {
        "aug._target_": "mirror.data.views.Cutoff", "aug.left": "feature", "aug.right": "shuffle", "aug.share": 0.2,
        "aug.dropout": 0.0, "model.pooling": "last_two", "loss.directions": "all", "loss.form": "nt_xent",
        "loss.temperature": 0.1, "batch.size": 96, "batch.max_tokens": 64, "optim.lr": 5e-7, "trainer.max_epochs": 10,
        "schedule._target_": "mirror.training.schedule.linear", "loss.mask_duplicates": False, "select": "best",
        "eval.every": 200,
    },
    "promptbert": {
        "model.pooling._target_": "mirror.encoder.prompt.MaskPooling",
        "model.pooling.template": 'This sentence of "{text}" means {mask}.',
        "aug._target_": "mirror.data.views.Prompt", "aug.other": 'This sentence : "{text}" means {mask}.',
        "aug.denoise": True, "aug.dropout": 0.1, "head._target_": "mirror.losses.heads.TanhHead",
        "loss.directions": "cross", "loss.form": "nt_xent", "loss.temperature": 0.05, "loss.mask_duplicates": False,
        "batch.size": 256, "batch.max_tokens": 42, "optim.weight_decay": 0.0, "optim.lr": 1e-5,
        "schedule._target_": "mirror.training.schedule.linear", "schedule.warmup_steps": 0, "trainer.max_epochs": 1,
        "select": "best", "eval.every": 125,
    },
    "contracode": {
        "aug._target_": "mirror.data.views.Code", "aug.rename": 0.5, "aug.insert": 0.25, "aug.lines": 0.5,
        "aug.keep": 0.5, "data.source._target_": "mirror.data.sources.python.functions",
        "loss._target_": "mirror.losses.queue.Queue", "loss.momentum": 0.999, "loss.temperature": 0.07,
        "loss.in_batch": False, "loss.key_dropout": True, "head._target_": "mirror.losses.heads.MLPHead",
        "head.layers": 2, "head.out": 128, "head.hidden": None, "head.batch_norm": False, "model.pooling": "mean",
        "batch.size": 256,
    },
    "declutr": {
        "aug._target_": "mirror.data.views.Spans", "aug.min_words": 32, "aug.max_words": 512, "aug.positive": "any",
        "data.source._target_": "mirror.data.sources.documents.documents", "model.pooling": "mean",
        "loss.directions": "all", "loss.form": "nt_xent", "loss.temperature": 0.05, "loss.mask_duplicates": False,
        "optim.lr": 5e-5, "optim.weight_decay": 0.1, "batch.size": 8, "batch.max_tokens": 512, "batch.drop_last": True,
        "trainer.gradient_clip": 1.0, "trainer.max_epochs": 1,
        "schedule._target_": "mirror.training.schedule.linear",
    },
    "crops": {
        "aug._target_": "mirror.data.views.Crop", "aug.sentences": 2, "aug.min_chars": 100, "aug.max_chars": 250,
        "loss.directions": "cross", "model.pooling": "mean",
    },
    "whitening": {
        "model.pooling": "first_last", "post._target_": "mirror.encoder.post.whitening", "post.dimensions": 256,
        "trainer.max_epochs": 0,
    },
    "barlow": {
        "loss._target_": "mirror.losses.barlow.BarlowTwins", "loss.redundancy": 0.005, "loss.scale": 1.0,
        "head._target_": "mirror.losses.heads.MLPHead", "head.hidden": 8192, "head.out": 8192, "head.layers": 3,
        "head.batch_norm": True,
    },
    "simclr": {
        "loss._target_": "mirror.losses.infonce.InfoNCE", "loss.directions": "all", "loss.form": "nt_xent",
        "loss.temperature": 0.1, "head._target_": "mirror.losses.heads.MLPHead", "head.hidden": None, "head.out": 128,
        "head.layers": 2, "head.batch_norm": False,
    },
    "vicreg": {
        "loss._target_": "mirror.losses.vicreg.VICReg", "loss.invariance": 25.0, "loss.variance": 25.0,
        "loss.covariance": 1.0, "head._target_": "mirror.losses.heads.MLPHead", "head.hidden": 8192, "head.out": 8192,
        "head.layers": 3, "head.batch_norm": True,
    },
    "moco": {
        "loss._target_": "mirror.losses.queue.Queue", "loss.momentum": 0.999, "loss.temperature": 0.07,
        "loss.in_batch": False, "loss.key_dropout": True, "loss.size": 4096, "aug.span_k": 0,
    },
    "ct": {
        "loss._target_": "mirror.losses.tension.Tension", "loss.negatives_each": 7, "model.pooling": "mean",
        "optim._target_": "mirror.training.optimizer.rmsprop", "optim.lr": 1e-5, "optim.decay": 0.9,
        "schedule._target_": "mirror.training.schedule.stepped", "schedule.every": 500,
        "schedule.factors": [0.8, 0.6, 0.4, 0.2], "batch.size": 16, "batch.max_tokens": 75, "aug.dropout": 0.0,
        "aug.span_k": 0, "trainer.max_steps": 5000, "select": "best", "eval.every": 500,
    },
    "ct_in_batch": {
        "loss._target_": "mirror.losses.tension.TensionInBatch", "loss.scale": 20.0, "model.pooling": "mean",
        "batch.size": 128, "batch.max_tokens": 75, "optim.lr": 5e-5, "aug.span_k": 0,
    },
    "triplet": {
        "loss._target_": "mirror.losses.triplet.Triplet", "loss.margin": 1.0, "loss.hardest": True,
        "model.pooling": "mean", "batch.size": 16, "optim.lr": 2e-5,
    },
    "labse": {
        "loss.directions": "both", "loss.margin": 0.3, "loss.form": "nt_xent", "loss.focal": 0.0,
        "model.pooling": "cls",
    },
    "mirror_cutoff": {
        "aug._target_": "mirror.data.views.Cutoff", "aug.left": "feature", "aug.right": "shuffle", "aug.share": 0.2,
        "aug.dropout": 0.0, "loss._target_": "mirror.losses.infonce.InfoNCE", "loss.form": "nt_xent",
        "loss.mask_duplicates": True, "batch.size": 200, "select": "last",
    },
    "distil": {
        "loss.match": "mse", "optim.lr": 1e-4, "schedule.warmup_steps": 1000, "batch.size": 64,
        "trainer.max_epochs": 1, "select": "best", "eval.every": 5000, "aug.dropout": 0.1,
    },
}  # fmt: skip


NEEDED = {"declutr": ["data.path=documents"], "contracode": ["data.path=source"], "distil": ["teacher=big"]}
"""What a recipe leaves to the user."""


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_the_published_one(name: str) -> None:
    config: Any = compose("train", [f"experiment={name}", *NEEDED.get(name, [])])
    check_parts(config)
    found = dict(flat(plain(config)))
    assert {key: found[key] for key in RECIPES[name]} == RECIPES[name]
