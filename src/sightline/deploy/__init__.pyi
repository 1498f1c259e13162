from .answers import AnswerRules as AnswerRules
from .answers import answer_table as answer_table
from .answers import run_rules as run_rules
from .export import Exported as Exported
from .export import export_onnx as export_onnx
from .export import export_torch as export_torch
from .hub import export_hub as export_hub
from .pictures import Answered as Answered
from .pictures import predict_pictures as predict_pictures
from .serve import Answerer as Answerer
from .serve import make_server as make_server

__all__ = [
    "AnswerRules",
    "Answered",
    "Answerer",
    "Exported",
    "answer_table",
    "export_hub",
    "export_onnx",
    "export_torch",
    "make_server",
    "predict_pictures",
    "run_rules",
]
