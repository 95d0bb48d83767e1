"""Lists the accuracy differences that reports show."""

from typing import NamedTuple


class Gap(NamedTuple):
    """The accuracy of a measured model minus that of another.

    Attributes:
      name: in the report.
      first, second: the models, as `report.json` calls them.
      in_run: whether the report of a run has it.
      in_study: whether that of a study has it.
    """

    name: str
    first: str
    second: str
    in_run: bool = True
    in_study: bool = True


# One large gap, the two that it is cut into, and those to the student without an assistant.
GAPS = (
    Gap("teacher_assistant", "teacher", "assistant"),
    Gap("assistant_student", "assistant", "student"),
    Gap("teacher_student", "teacher", "student", in_run=False),
    Gap("teacher_student_direct", "teacher", "student_direct", in_study=False),
    Gap("student_student_direct", "student", "student_direct", in_study=False),
)
