"""What a model class is for: pipeline tag, Auto class and how people call the task.

By the naming convention of transformers' classes (`BertForSequenceClassification`), so that it works for
custom classes that keep to it; where transformers lists a class of its own elsewhere, by its lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


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

LISTS = {
    "AutoModelForSeq2SeqLM": "SEQ_TO_SEQ_CAUSAL_LM",
    "AutoModelForImageTextToText": "IMAGE_TEXT_TO_TEXT",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSequenceClassification": "SEQUENCE_CLASSIFICATION",
    "AutoModelForTokenClassification": "TOKEN_CLASSIFICATION",
    "AutoModelForTableQuestionAnswering": "TABLE_QUESTION_ANSWERING",
    "AutoModelForVisualQuestionAnswering": "VISUAL_QUESTION_ANSWERING",
    "AutoModelForDocumentQuestionAnswering": "DOCUMENT_QUESTION_ANSWERING",
    "AutoModelForQuestionAnswering": "QUESTION_ANSWERING",
    "AutoModelForMaskedLM": "MASKED_LM",
    "AutoModelForMultipleChoice": "MULTIPLE_CHOICE",
    "AutoModelForImageClassification": "IMAGE_CLASSIFICATION",
    "AutoModelForVideoClassification": "VIDEO_CLASSIFICATION",
    "AutoModelForObjectDetection": "OBJECT_DETECTION",
    "AutoModelForDepthEstimation": "DEPTH_ESTIMATION",
    "AutoModelForSemanticSegmentation": "SEMANTIC_SEGMENTATION",
    "AutoModelForInstanceSegmentation": "INSTANCE_SEGMENTATION",
    "AutoModelForUniversalSegmentation": "UNIVERSAL_SEGMENTATION",
    "AutoModelForSpeechSeq2Seq": "SPEECH_SEQ_2_SEQ",
    "AutoModelForCTC": "CTC",
    "AutoModelForAudioClassification": "AUDIO_CLASSIFICATION",
    "AutoModelForTextToWaveform": "TEXT_TO_WAVEFORM",
}
"""Auto class → the list of the model classes that it loads, in `transformers.models.auto.modeling_auto`."""

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


def as_listed(task: Task | None, class_name: str, lists: Mapping[str, Any]) -> Task | None:
    """The task under which transformers lists one of its own classes: `task`, if it does; `None` if under none.

    Args:
        task: What its name tells.
        class_name: Name of the class.
        lists: What `transformers.models.auto.modeling_auto` holds.
    """
    by_auto_class = {task.auto_class: task for task in (_SEQ2SEQ, _VISION_LANGUAGE, *_BY_SUFFIX.values())}
    candidates = [task] if task else []
    candidates += [by_auto_class[name] for name in LISTS]
    return next((one for one in candidates if _is_listed(class_name, one, lists)), None)


def _is_listed(class_name: str, task: Task, lists: Mapping[str, Any]) -> bool:
    classes = lists.get(f"MODEL_FOR_{LISTS[task.auto_class]}_MAPPING_NAMES", {}).values()
    return any(class_name in ([one] if isinstance(one, str) else one) for one in classes)


def task_of_adapter(task_type: str | None) -> Task | None:
    """The task of a PEFT `TaskType`."""
    return _BY_PEFT_TASK_TYPE.get(task_type or "")
