"""A teacher that was trained elsewhere."""

from components.imported_teacher.component import ImportedTeacher

__all__ = ["ImportedTeacher"]
