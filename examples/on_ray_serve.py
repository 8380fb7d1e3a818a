"""A model as a deployment on Ray Serve: two replicas of one CPU each.

pip install "npmobilenet[image]" "ray[serve]"
serve run examples.on_ray_serve:app, then: curl --data-binary @photo.jpg http://127.0.0.1:8000/classify
"""

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

import npmobilenet
from npmobilenet.distributed import granted_cpus
from npmobilenet.serving.service import Service


@serve.deployment(num_replicas=2, ray_actor_options={"num_cpus": 1})
class Photographs:
    def __init__(self, model="mobilenet_v2"):
        self.service = Service(npmobilenet.load(model), threads=granted_cpus())

    async def __call__(self, request: Request):
        answer = await self.service.answer(request.url.path.strip("/"), await request.body())
        return JSONResponse(answer.told, answer.status)


app = Photographs.bind()
