"""A teacher that was trained elsewhere."""

from stillhouse.components.imported_teacher.component import ImportedTeacher

__all__ = ["ImportedTeacher"]
