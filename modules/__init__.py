"""What runs inside components: ingestion, training, distillation, export."""
