"""Networks: heads, the task contract, teachers, export, serving, weights."""
