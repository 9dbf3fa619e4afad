"""What arrived from the site's network, and what became of it: GET /v1/arrivals."""

from typing import Annotated

from fastapi import APIRouter, Query

from ...domain import ArrivalState, Origin
from ...storage.arrivals import ArrivalFilter
from ..arrival_schemas import ARRIVALS, ArrivalList, shown
from ..deps import ACTOR, Reader, Services
from ..responses import problems

router = APIRouter(tags=["arrivals"])


@router.get(
    ARRIVALS,
    response_model=ArrivalList,
    responses=problems(422),
    summary="List series that arrived",
)
def list_arrivals(
    *,
    container: Services,
    caller: Reader,
    state: Annotated[ArrivalState | None, Query()] = None,
    origin: Annotated[Origin | None, Query()] = None,
    sender: Annotated[
        str | None, Query(pattern=ACTOR, description="AE title, or the id of an API key.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
) -> ArrivalList:
    """Newest first: who sent, how much came, which rule decided, and what was submitted or why
    nothing was."""
    wanted = ArrivalFilter(state=state, origin=origin, caller=sender)
    page = container.arrivals.page(wanted, cursor=cursor, limit=limit)
    container.audit.record(caller.actor, "list_arrivals")
    return ArrivalList(items=[shown(one) for one in page.arrivals], next=page.cursor)
