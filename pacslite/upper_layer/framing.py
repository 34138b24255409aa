"""From the byte stream to PDUs and P-DATA fragments, PS3.8 §9.3: incremental, and without copies of P-DATA.

The bytes of a P-DATA-TF go on as views of the receive buffer, before their PDU is complete. Kept between two calls is
the beginning of a header or of one of the other, small PDUs; it grows with the bytes received, never with a length
announced.
"""

from struct import Struct
from typing import TypeAlias

from pacslite.upper_layer.events import Fragment
from pacslite.upper_layer.pdu import P_DATA_TF, PDU, PDU_HEADER, PDUError, decode_pdu_body, decode_pdu_header

__all__ = ["Found", "Framing", "PDataTF"]

_HEADER = 6  # bytes of a PDU header; of a PDV header too
_PDV_HEADER = Struct("!IBB")  # Item-length, Presentation-context-ID, message control header


class PDataTF:
    """Marks the header of a P-DATA-TF PDU: its fragments follow."""

    name = "P-DATA-TF"


_P_DATA_TF_MARK = PDataTF()
Found: TypeAlias = Fragment | PDataTF | PDU


class Framing:
    """Splits what one peer sends. After a PDUError its boundaries are unknown: the rest of the stream is noise."""

    __slots__ = ("_context_id", "_held", "_is_command", "_is_last", "_maximum_length", "_pdu_left", "_pdv_left")

    def __init__(self, maximum_length: int) -> None:
        """``maximum_length`` is what we announced: the largest PDU-length of a P-DATA-TF, 0 for no limit."""
        self._maximum_length = maximum_length
        self._held = bytearray()
        self._pdu_left = 0  # bytes of the P-DATA-TF PDU that have not arrived
        self._pdv_left = 0  # of them, bytes of the current fragment
        self._context_id = 0
        self._is_command = False
        self._is_last = True

    @property
    def held(self) -> int:
        """Bytes kept between two calls."""
        return len(self._held)

    def split(self, data: memoryview, found: list[Found]) -> None:
        """Append what ``data`` brings to ``found``, in order. No generator: resuming one costs as much as the rest.

        Raises:
            PDUError: From here on the stream is no sequence of PDUs.
        """
        held = self._held
        at, end = 0, len(data)
        while at < end:
            if self._pdv_left:
                size = min(self._pdv_left, end - at)
                self._pdv_left -= size
                self._pdu_left -= size
                is_last = self._is_last and not self._pdv_left
                found.append(Fragment(self._context_id, self._is_command, is_last, data[at : at + size]))
                at += size
                continue
            source: memoryview | bytearray
            if end - at >= _HEADER and not held:
                source, start = data, at
                at += _HEADER
            else:
                source, start = held, 0
                at = self._hold(data, at, _HEADER)
                if len(held) < _HEADER:
                    return
            if self._pdu_left:
                length, context_id, control = _PDV_HEADER.unpack_from(source, start)
                after = self._pdu_left - 4 - length
                if length < 2 or after < 0 or 0 < after < _HEADER:  # nothing of a PDV that leaves its PDU is delivered
                    raise _bad_pdv(length, after)
                held.clear()
                self._pdu_left -= _HEADER
                self._pdv_left = length - 2
                is_command, is_last = control & 1 != 0, control & 2 != 0
                if length == 2:  # a PDV of a header alone; receivers should accept it (PS3.8 §E.2)
                    awaited = not self._is_last and (self._context_id, self._is_command) == (context_id, is_command)
                    if is_last or not awaited:  # else it changes nothing, and may come by the thousand
                        found.append(Fragment(context_id, is_command, is_last, data[at:at]))
                self._context_id, self._is_command, self._is_last = context_id, is_command, is_last
            elif source[start] == P_DATA_TF:
                length = PDU_HEADER.unpack_from(source, start)[1]
                if length < _HEADER or 0 < self._maximum_length < length:
                    raise self._bad_length(length)
                held.clear()
                self._pdu_left = length
                found.append(_P_DATA_TF_MARK)
            else:
                pdu_type, length = decode_pdu_header(bytes(source[start : start + _HEADER]))
                if source is data and end - at >= length:
                    body = data[at : at + length]
                    at += length
                else:
                    if source is data:
                        held += data[start:at]
                    at = self._hold(data, at, _HEADER + length)
                    if len(held) < _HEADER + length:
                        return
                    body = memoryview(bytes(held))[_HEADER:]
                    held.clear()
                found.append(decode_pdu_body(pdu_type, body))

    def _hold(self, data: memoryview, at: int, size: int) -> int:
        """Keep what is missing to ``size`` bytes, or what there is of it; return where ``data`` goes on."""
        missing = size - len(self._held)
        if missing <= 0:
            return at
        piece = data[at : at + missing]
        self._held += piece
        return at + len(piece)

    def _bad_length(self, length: int) -> PDUError:
        if length < _HEADER:
            problem = f"{length} bytes have no room for a PDV"
        else:
            problem = f"{length} is over the maximum length of {self._maximum_length} we announced"
        return PDUError(PDataTF.name, "PDU-length", problem)


def _bad_pdv(length: int, after: int) -> PDUError:
    """What is wrong with an Item-length that leaves ``after`` bytes of its PDU."""
    if length < 2:
        problem = f"a PDV of {length} bytes has no message control header"
    elif after < 0:
        problem = f"a PDV of {length} bytes leaves its PDU by {-after}"
    else:
        problem = f"after a PDV of {length} bytes {after} are left, no PDV"
    return PDUError(PDataTF.name, "Item-length", problem)
