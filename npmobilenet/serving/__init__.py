"""A server: photographs in by HTTP, JSON out.

``service``
    What it answers, and what it refuses; knows nothing of HTTP but the numbers of answers.
``forms``, ``metrics``
    Photographs in forms; counts for Prometheus.
``app``, ``server``
    Starlette's application, with the page ``page.html``; uvicorn around it.

``service``, ``forms`` and ``metrics`` need no package of the extra "serve".
"""
