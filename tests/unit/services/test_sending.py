"""Sub-operations whose instance was replaced after they were planned: it leaves as what it is now, or not at all."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pacslite.archive.archive import Archive
from pacslite.dataset.source import ReadBuffer
from pacslite.scu.contexts import ContextMap, storage_contexts
from pacslite.scu.pool import Pool
from pacslite.scu.requestor import Address, Requestor, RequestorOptions
from pacslite.services.sending import InstanceSender
from pacslite.services.sub_operations import SubOperationFailed
from pacslite.services.transcoding import Transcoder, TranscoderOptions
from tests.support.instances import make_instance
from tests.support.processes import free_port
from tests.support.storage_scp import StorageScp
from tests.support.storing import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from tests.support.storing import archive_in, read, reference, store
from tests.support.wire import CT_IMAGE

RLE = str(RLELossless)
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
PLAIN = make_instance(1, size=256)

Kind = tuple[str, str]  # SOP class UID, transfer syntax UID
CT, CT_RLE, MR = (CT_IMAGE, EXPLICIT), (CT_IMAGE, RLE), (MR_IMAGE, EXPLICIT)


async def put(archive: Archive, kind: Kind, comment: str) -> None:
    """Store the instance as one of this kind, over what it was before."""
    sop_class_uid, transfer_syntax_uid = kind
    data_set = dcmread(BytesIO(PLAIN.data), force=True)
    data_set.SOPClassUID, data_set.ImageComments = sop_class_uid, comment
    data_set.Rows, data_set.Columns, data_set.SamplesPerPixel = 16, 16, 1
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = 8, 8, 7, 0
    data_set.PhotometricInterpretation = "MONOCHROME2"
    if transfer_syntax_uid == RLE:
        data_set["PixelData"].VR = "OB"
        data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data_set.compress(RLELossless, generate_instance_uid=False)
    instance = replace(PLAIN, data=encoded(data_set))
    await store(archive, instance, sop_class_uid=sop_class_uid, transfer_syntax_uid=transfer_syntax_uid)


def encoded(data_set: Dataset) -> bytes:
    output = DicomBytesIO()
    output.is_implicit_VR, output.is_little_endian = False, True
    write_dataset(output, data_set)
    return output.getvalue()


@pytest.mark.parametrize("transcodes", [False, True])
@pytest.mark.parametrize(
    ("planned", "now", "others", "as_it_is", "decompressed"),
    [
        (CT_RLE, CT_RLE, [], True, True),
        (CT_RLE, CT, [], True, True),
        (CT, CT_RLE, [], False, True),
        (CT, CT_RLE, [CT_RLE], True, True),
        (CT, MR, [], False, False),
        (CT, MR, [MR], True, True),
    ],
)
async def test_replaced_after_it_was_planned(
    tmp_path: Path,
    planned: Kind,
    now: Kind,
    others: Sequence[Kind],
    as_it_is: bool,
    decompressed: bool,
    transcodes: bool,
) -> None:
    transcoder = Transcoder(TranscoderOptions(folder=tmp_path)) if transcodes else None
    pool = Pool(Requestor(RequestorOptions()), 0)
    (contexts,) = storage_contexts([planned, *others])
    async with archive_in(tmp_path / "data", duplicates="replace") as archive, StorageScp(free_port()) as scp:
        await put(archive, planned, "old")
        instance = reference(archive, PLAIN.sop_instance_uid)
        await put(archive, now, "new")
        connection = await pool.acquire(Address("WS", "127.0.0.1", scp.port), contexts)
        accepted = ContextMap(connection.negotiated.contexts)
        sender = InstanceSender(archive, 0, None, {}, transcoder)
        try:
            if decompressed if transcodes else as_it_is:
                assert await sender.send(connection, accepted, instance, ReadBuffer()) == 0
            else:
                with pytest.raises(SubOperationFailed, match="no presentation context"):
                    await sender.send(connection, accepted, instance, ReadBuffer())
        finally:
            await connection.release()
            if transcoder is not None:
                await transcoder.stop()
        for one in scp.received:
            assert one.sop_class_uid == now[0]
            found = dcmread(BytesIO(one.data), force=True)
            assert (found.SOPClassUID, found.ImageComments) == (now[0], "new")
            assert one.transfer_syntax_uid == (now[1] if as_it_is else EXPLICIT)
            if as_it_is:
                assert one.data == read(archive, PLAIN.sop_instance_uid)
            else:
                assert found.PixelData == dcmread(BytesIO(PLAIN.data), force=True).PixelData
