"""Training as several processes: who starts them, what each of them does, what happens when one dies."""
