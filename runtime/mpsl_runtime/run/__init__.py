"""A plan and steps of events, or images, in; answers out.

What comes in: a `Plan` and the input of each step. What goes out: spikes (by the event-driven
engine in C++, or the same step in numpy), scores, and predictions by a policy. This room reads no
file of a camera.
"""
