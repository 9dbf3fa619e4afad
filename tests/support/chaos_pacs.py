"""What a PACS holds in the end."""

import io
from collections import Counter
from dataclasses import dataclass

import httpx
from pydicom import dcmread
from servers import OrthancServer


@dataclass(frozen=True)
class Held:
    """A series in the PACS. ``refers_to``: the series that a SEG is of, else empty."""

    study_uid: str
    modality: str
    instances: int
    refers_to: str


def held_by(orthanc: OrthancServer) -> Counter[Held]:
    """All of its series."""
    with orthanc.http() as http:
        studies = {
            one["ID"]: one["MainDicomTags"]["StudyInstanceUID"]
            for one in http.get("/studies", params={"expand": ""}).raise_for_status().json()
        }
        found = http.get("/series", params={"expand": ""}).raise_for_status().json()
        return Counter(
            Held(
                studies[one["ParentStudy"]],
                one["MainDicomTags"]["Modality"],
                len(one["Instances"]),
                _source(http, one["Instances"]) if _is_seg(one) else "",
            )
            for one in found
        )


def _is_seg(series: dict[str, dict[str, str]]) -> bool:
    return series["MainDicomTags"]["Modality"] == "SEG"


def _source(http: httpx.Client, instances: list[str]) -> str:
    content = http.get(f"/instances/{instances[0]}/file").raise_for_status().content
    seg = dcmread(io.BytesIO(content), stop_before_pixels=True)
    return ",".join(str(one.SeriesInstanceUID) for one in seg.ReferencedSeriesSequence)
