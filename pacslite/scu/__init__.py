"""Service class user: a DICOM client as a library, and what the server needs to send by itself."""

from pacslite.scu.client import Client, ContextNotAccepted, OperationFailed, Progress
from pacslite.scu.commitment import CommitmentReport, Reference
from pacslite.scu.requestor import Address, RequestorOptions
from pacslite.scu.sender import StoreResult

__all__ = [
    "Address",
    "Client",
    "CommitmentReport",
    "ContextNotAccepted",
    "OperationFailed",
    "Progress",
    "Reference",
    "RequestorOptions",
    "StoreResult",
]
