"""Downstream tasks: questions that full and quantized models answer, by lm-evaluation-harness."""
