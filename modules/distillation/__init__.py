"""Knowledge distillation: objectives and teachers."""
