"""What a model class is for: pipeline tag, Auto class and how people call the task.

By the naming convention of transformers' classes (`BertForSequenceClassification`), so that it works for
custom classes that keep to it, and in a process without transformers.
"""

from __future__ import annotations

from typing import NamedTuple


class Task(NamedTuple):
    """`pipeline_tag` as on https://huggingface.co/tasks; `auto_class` is a name in transformers."""

    pipeline_tag: str
    auto_class: str


_TAGS = {
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForTableQuestionAnswering": "table-question-answering",
    "ForVisualQuestionAnswering": "visual-question-answering",
    "ForDocumentQuestionAnswering": "document-question-answering",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "ForVideoClassification": "video-classification",
    "ForObjectDetection": "object-detection",
    "ForDepthEstimation": "depth-estimation",
    "ForSemanticSegmentation": "image-segmentation",
    "ForInstanceSegmentation": "image-segmentation",
    "ForUniversalSegmentation": "image-segmentation",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ForCTC": "automatic-speech-recognition",
    "ForAudioClassification": "audio-classification",
    "ForTextToWaveform": "text-to-audio",
}
"""End of a class's name, which its Auto class has too → pipeline tag."""
_BY_SUFFIX = {suffix: Task(tag, f"AutoModel{suffix}") for suffix, tag in _TAGS.items()}
_BY_SUFFIX["LMHeadModel"] = _BY_SUFFIX["ForCausalLM"]
_BY_SUFFIX["ForImageClassificationWithTeacher"] = _BY_SUFFIX["ForImageClassification"]

_SEQ2SEQ = Task("text2text-generation", "AutoModelForSeq2SeqLM")
_VISION_LANGUAGE = Task("image-text-to-text", "AutoModelForImageTextToText")
_SPEECH = _BY_SUFFIX["ForSpeechSeq2Seq"]

_BY_PEFT_TASK_TYPE = {
    "CAUSAL_LM": _BY_SUFFIX["ForCausalLM"],
    "SEQ_CLS": _BY_SUFFIX["ForSequenceClassification"],
    "TOKEN_CLS": _BY_SUFFIX["ForTokenClassification"],
    "QUESTION_ANS": _BY_SUFFIX["ForQuestionAnswering"],
    "SEQ_2_SEQ_LM": _SEQ2SEQ,
}

LABELS = {tag: tag.replace("-", " ") for tag in _TAGS.values()} | {
    "automatic-speech-recognition": "speech recognition",
    "document-question-answering": "answering questions about documents",
    "feature-extraction": "feature extraction",
    "fill-mask": "filling in masked words",
    "image-text-to-text": "text generation from images and text",
    "sentence-similarity": "sentence similarity",
    "summarization": "summarization",
    "table-question-answering": "answering questions about tables",
    "text-to-audio": "turning text into audio",
    "text2text-generation": "turning text into text",
    "translation": "translation",
    "visual-question-answering": "answering questions about images",
    "zero-shot-classification": "zero-shot classification",
}
"""Pipeline tag → what people call the task, in lower case, to be used after "for"."""


def task_of(class_name: str, *, has_vision: bool, takes_audio: bool) -> Task | None:
    """The task of a model class, `None` if its name does not tell.

    Args:
        class_name: Name of the class, such as `"ViTForImageClassification"`.
        has_vision: Whether its configuration has a part for images.
        takes_audio: Whether its main input is audio.
    """
    for suffix, task in _BY_SUFFIX.items():
        if class_name.endswith(suffix):
            return task
    if class_name.endswith("ForConditionalGeneration"):
        return _VISION_LANGUAGE if has_vision else _SPEECH if takes_audio else _SEQ2SEQ
    return None


def task_of_adapter(task_type: str | None) -> Task | None:
    """The task of a PEFT `TaskType`."""
    return _BY_PEFT_TASK_TYPE.get(task_type or "")
