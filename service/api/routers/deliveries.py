"""Results on their way to destinations: read, try again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from ...domain import Job
from ...errors import NotFoundError
from ..delivery_schemas import Delivery, DeliveryList, delivery
from ..deps import JOB_ID, Services, Writer, viewed
from ..responses import problems
from ..schemas import BASE, EXAMPLE_ID

router = APIRouter(tags=["deliveries"])

DELIVERY_PATH = Path(description="The id of a delivery.", examples=[EXAMPLE_ID])


@router.get(
    f"{BASE}/{{segmentation_id}}/deliveries",
    response_model=DeliveryList,
    responses=problems(404),
    summary="Where the results went",
)
def list_deliveries(
    container: Services, job: Annotated[Job, Depends(viewed("deliveries"))]
) -> DeliveryList:
    """One for each destination, by name. They exist once the segmentation has succeeded."""
    return DeliveryList(items=[delivery(one) for one in container.deliveries.of_job(job.id)])


@router.post(
    "/v1/deliveries/{delivery_id}/retry",
    response_model=Delivery,
    responses=problems(404, 409),
    summary="Try a delivery again",
)
def retry_delivery(
    container: Services, caller: Writer, delivery_id: Annotated[str, DELIVERY_PATH]
) -> Delivery:
    """A failed, cancelled or waiting one is due at once, from its first form on."""
    if not JOB_ID.fullmatch(delivery_id):
        raise NotFoundError("there is no delivery of this id", code="delivery_not_found")
    found = container.deliveries.retry(delivery_id)
    container.audit.record(caller.actor, "retry_delivery", found.job_id)
    return delivery(found)
