"""A running stream in, what an operator needs of it out: figures, health, logs, and its state.

What comes in: `run.loop.Loop`s that another thread iterates over. What goes out: text for
Prometheus, HTTP answers, lines for journals, words to systemd. This room changes no answer, and
waits for nobody: who reads slowly reads old figures.
"""
