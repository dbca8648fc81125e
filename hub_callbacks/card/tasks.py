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
    label: str


_BY_SUFFIX: tuple[tuple[str, Task], ...] = (
    ("ForCausalLM", Task("text-generation", "AutoModelForCausalLM", "text generation")),
    ("LMHeadModel", Task("text-generation", "AutoModelForCausalLM", "text generation")),
    (
        "ForSequenceClassification",
        Task("text-classification", "AutoModelForSequenceClassification", "text classification"),
    ),
    (
        "ForTokenClassification",
        Task("token-classification", "AutoModelForTokenClassification", "token classification"),
    ),
    (
        "ForTableQuestionAnswering",
        Task(
            "table-question-answering",
            "AutoModelForTableQuestionAnswering",
            "answering questions about tables",
        ),
    ),
    (
        "ForVisualQuestionAnswering",
        Task(
            "visual-question-answering",
            "AutoModelForVisualQuestionAnswering",
            "answering questions about images",
        ),
    ),
    (
        "ForDocumentQuestionAnswering",
        Task(
            "document-question-answering",
            "AutoModelForDocumentQuestionAnswering",
            "answering questions about documents",
        ),
    ),
    (
        "ForQuestionAnswering",
        Task("question-answering", "AutoModelForQuestionAnswering", "question answering"),
    ),
    ("ForMaskedLM", Task("fill-mask", "AutoModelForMaskedLM", "filling in masked words")),
    ("ForMultipleChoice", Task("multiple-choice", "AutoModelForMultipleChoice", "multiple choice")),
    (
        "ForImageClassification",
        Task("image-classification", "AutoModelForImageClassification", "image classification"),
    ),
    (
        "ForImageClassificationWithTeacher",
        Task("image-classification", "AutoModelForImageClassification", "image classification"),
    ),
    (
        "ForVideoClassification",
        Task("video-classification", "AutoModelForVideoClassification", "video classification"),
    ),
    ("ForObjectDetection", Task("object-detection", "AutoModelForObjectDetection", "object detection")),
    ("ForDepthEstimation", Task("depth-estimation", "AutoModelForDepthEstimation", "depth estimation")),
    (
        "ForSemanticSegmentation",
        Task("image-segmentation", "AutoModelForSemanticSegmentation", "semantic segmentation"),
    ),
    (
        "ForInstanceSegmentation",
        Task("image-segmentation", "AutoModelForInstanceSegmentation", "instance segmentation"),
    ),
    (
        "ForUniversalSegmentation",
        Task("image-segmentation", "AutoModelForUniversalSegmentation", "image segmentation"),
    ),
    (
        "ForSpeechSeq2Seq",
        Task("automatic-speech-recognition", "AutoModelForSpeechSeq2Seq", "speech recognition"),
    ),
    ("ForCTC", Task("automatic-speech-recognition", "AutoModelForCTC", "speech recognition")),
    (
        "ForAudioClassification",
        Task("audio-classification", "AutoModelForAudioClassification", "audio classification"),
    ),
    ("ForTextToWaveform", Task("text-to-audio", "AutoModelForTextToWaveform", "turning text into audio")),
)
_SEQ2SEQ = Task("text2text-generation", "AutoModelForSeq2SeqLM", "turning text into text")
_VISION_LANGUAGE = Task(
    "image-text-to-text", "AutoModelForImageTextToText", "text generation from images and text"
)
_SPEECH = Task("automatic-speech-recognition", "AutoModelForSpeechSeq2Seq", "speech recognition")

_PEFT_TASK_TYPES = {
    "CAUSAL_LM": "ForCausalLM",
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
}

LABELS = {task.pipeline_tag: task.label for _, task in reversed(_BY_SUFFIX)} | {
    "automatic-speech-recognition": "speech recognition",
    "feature-extraction": "feature extraction",
    "image-segmentation": "image segmentation",
    "image-text-to-text": _VISION_LANGUAGE.label,
    "sentence-similarity": "sentence similarity",
    "summarization": "summarization",
    "text2text-generation": _SEQ2SEQ.label,
    "translation": "translation",
    "zero-shot-classification": "zero-shot classification",
}
"""Pipeline tag → what people call the task, in lower case, to be used after "for"."""


def task_of(class_name: str, *, has_vision: bool = False, takes_audio: bool = False) -> Task | None:
    """The task of a model class, `None` if its name does not tell.

    Args:
        class_name: Name of the class, such as `"ViTForImageClassification"`.
        has_vision: Whether its configuration has a part for images.
        takes_audio: Whether its main input is audio.
    """
    for suffix, task in _BY_SUFFIX:
        if class_name.endswith(suffix):
            return task
    if class_name.endswith("ForConditionalGeneration"):
        return _VISION_LANGUAGE if has_vision else _SPEECH if takes_audio else _SEQ2SEQ
    return None


def task_of_adapter(task_type: str | None) -> Task | None:
    """The task of a PEFT `TaskType`."""
    if task_type == "SEQ_2_SEQ_LM":
        return _SEQ2SEQ
    suffix = _PEFT_TASK_TYPES.get(task_type or "")
    return task_of(suffix) if suffix else None
