"""Models and a source in, a page that shows both while they run out.

What comes in: models that are ready to run, and recordings or a live source. What goes out:
pictures and numbers for browsers, and a film. This room decides nothing: the answers are those of
`run`, which never waits for a page.
"""
