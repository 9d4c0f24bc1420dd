"""Signed notes and checkpoints: what other programs wrote is read, in its one spelling, if a known key signed it."""

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.note import (
    MAX_BYTES,
    MAX_SIZE,
    Checkpoint,
    NoteError,
    SignerKey,
    VerifierKey,
    open_note,
    open_signed,
)

# ---- what other programs wrote ----

# golang.org/x/mod/sumdb/note
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"

# c2sp.org/signed-note, its worked example
SPEC = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = """\
This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""
# c2sp.org/signed-note, the example at its beginning: an empty line in the text, letters outside ASCII, no known key
POEM = """\
Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""  # noqa: E501

# The database of Go's checksums, as it answered one day in 2024
GO_SUM = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_SUM_NOTE = """\
go.sum database tree
30055305
mXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=

— sum.golang.org Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=
"""

# c2sp.org/tlog-checkpoint, its example
CHECKPOINT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def known(*texts):
    return [VerifierKey.parse(text) for text in texts]


@pytest.mark.parametrize("text", [PETER, ENOCH, SPEC, GO_SUM])
def test_a_verifier_key_that_another_program_wrote_is_read_and_written_the_same(text):
    key = VerifierKey.parse(text)
    assert str(key) == text
    name, key_id, _ = text.split("+", 2)
    assert (key.name, key.key_id.hex()) == (name, key_id)


@pytest.mark.parametrize(
    "note, key, text",
    [
        (f"{TEXT}\n{PETER_LINE}", PETER, TEXT),
        (f"{TEXT}\n{ENOCH_LINE}", ENOCH, TEXT),
        (SPEC_NOTE, SPEC, "This is an example message.\n"),
        (GO_SUM_NOTE, GO_SUM, GO_SUM_NOTE.partition("\n\n")[0] + "\n"),
    ],
)
def test_a_note_that_another_program_signed_is_opened(note, key, text):
    assert open_note(note, known(key)) == text


def test_a_note_is_signed_as_another_program_signs_it():
    signer = SignerKey("PeterNeumann", Ed25519PrivateKey.from_private_bytes(PETER_SEED))
    assert str(signer.verifier) == PETER
    assert signer.sign(TEXT) == f"{TEXT}\n{PETER_LINE}"


def test_a_checkpoint_that_another_log_signed_is_read():
    checkpoint = Checkpoint.parse(open_note(GO_SUM_NOTE, known(GO_SUM)))
    assert (checkpoint.origin, checkpoint.size) == ("go.sum database tree", 30055305)
    assert checkpoint.root.hex() == "9977e045c2746c6d23dc23dd2b08065ad5330546d7ebbb1a64646616e2461ac3"


def test_the_checkpoint_of_the_specification_is_read_and_written_the_same():
    checkpoint = Checkpoint.parse(CHECKPOINT)
    assert checkpoint.text == CHECKPOINT
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)


# ---- keys ----


def signer(name="vestibule/villa", seed=1):
    return SignerKey(name, Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32)))


def test_no_part_of_a_verifier_key_is_a_verifier_key():
    for start in range(len(PETER)):
        for end in range(start + 1, len(PETER) + 1):
            if (start, end) != (0, len(PETER)):
                with pytest.raises(NoteError):
                    VerifierKey.parse(PETER[start:end])


@pytest.mark.parametrize("text", [PETER, GO_SUM])
def test_a_verifier_key_in_which_one_character_changed_is_refused(text):
    for position, character in enumerate(text):
        for other in {chr(ord(character) + 1), chr(ord(character) ^ 1), character.swapcase(), "+", " "} - {character}:
            with pytest.raises(NoteError):
                VerifierKey.parse(text[:position] + other + text[position + 1 :])


PUBLIC = signer().verifier.public


def spelled(name, body, key_id=None):
    """A verifier key's text around any bytes, its id being right unless one is given."""
    key_id = key_id or sha256(name.encode() + b"\n" + body).hexdigest()[:8]
    return f"{name}+{key_id}+{base64.b64encode(body).decode()}"


@pytest.mark.parametrize(
    "text, says",
    [
        pytest.param("", "not a verifier key", id="nothing"),
        pytest.param("villa+00000000", "not a verifier key", id="no key"),
        pytest.param(spelled("villa", b"\x01" + b"k" * 31), "32 bytes, not 31", id="a key too short"),
        pytest.param(spelled("villa", b"\x01" + b"k" * 33), "32 bytes, not 33", id="a key too long"),
        pytest.param(spelled("villa", b"\x04" + b"k" * 32), "not known here", id="a witness's kind of key"),
        pytest.param(spelled("villa", b""), "not known here", id="an empty key"),
        pytest.param(spelled("villa", b"\x01" + b"k" * 32), "no Ed25519 public key", id="no point of the curve"),
        pytest.param(spelled("villa", b"\x01" + bytes(32)), "anybody can sign", id="a point of small order"),
        pytest.param(spelled("villa", b"\x01" + PUBLIC, "00000000"), "does not fit its id", id="another id"),
        pytest.param(spelled("", b"\x01" + b"k" * 32), "cannot name a key", id="no name"),
        pytest.param(spelled("the villa", b"\x01" + b"k" * 32), "cannot name a key", id="a space in the name"),
        pytest.param(f"{PETER}\n", "not base64", id="a newline behind it"),
        pytest.param(f" {PETER}", "cannot name a key", id="a space before it"),
        pytest.param(PETER.replace("/", "_"), "not base64", id="the other alphabet"),
        pytest.param(f"{PETER}=", "not base64", id="padding that is not needed"),
        pytest.param(f"{PETER[:-1]}é", "not base64", id="a letter outside ASCII"),
        pytest.param(PETER.replace("c74f20a3", "C74F20A3"), "does not fit its id", id="capital digits"),
        pytest.param(PETER.replace("c74f20a3", "0xc74f20a3"), "does not fit its id", id="a prefix"),
    ],
)
def test_what_is_no_verifier_key_is_refused_and_the_message_says_why(text, says):
    with pytest.raises(NoteError, match=says):
        VerifierKey.parse(text)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("the villa", id="space"),
        pytest.param("the\u00a0villa", id="no-break space"),
        pytest.param("the\u2003villa", id="em space"),
        pytest.param("the\u2028villa", id="line separator"),
        pytest.param("the\u0085villa", id="next line"),
        pytest.param("the\nvilla", id="newline"),
        pytest.param("the\tvilla", id="tab"),
        pytest.param("the\0villa", id="NUL"),
        pytest.param("the\x1bvilla", id="escape"),
        pytest.param("the+villa", id="plus"),
        pytest.param("the\ud800villa", id="lone surrogate"),
    ],
)
def test_a_name_that_a_signature_line_cannot_carry_is_refused(name):
    with pytest.raises(NoteError, match="cannot name a key"):
        VerifierKey(name, b"k" * 32)
    with pytest.raises(NoteError, match="cannot name a key"):
        signer(name)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="+"), min_size=1)


@given(NAMES, st.binary(min_size=32, max_size=32))
def test_every_verifier_key_is_read_as_it_was_written(name, seed):
    key = SignerKey(name, Ed25519PrivateKey.from_private_bytes(seed)).verifier
    assert VerifierKey.parse(str(key)) == key


@given(st.data())
def test_a_verifier_key_with_characters_lost_put_in_or_changed_is_refused(data):
    start = data.draw(st.integers(0, len(GO_SUM)), "start")
    end = data.draw(st.integers(start, min(start + 3, len(GO_SUM))), "end")
    put_in = data.draw(st.text(st.sampled_from("+/=-_AaZz09 \n") | st.characters(), max_size=3), "put in")
    changed = GO_SUM[:start] + put_in + GO_SUM[end:]
    if changed != GO_SUM:
        with pytest.raises(NoteError):
            VerifierKey.parse(changed)


@pytest.mark.parametrize("public", [b"\xff" * 32, b"\x02" + b"\0" * 31], ids=["no number", "no point"])
def test_a_public_key_that_is_no_point_is_refused(public):
    with pytest.raises(NoteError, match="no Ed25519 public key"):
        VerifierKey("villa", public)


def test_a_key_under_which_anybody_can_sign_is_refused():
    """A journal that names it would be proved by anybody: this signature holds for every text."""
    neutral = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"any text\n")
    with pytest.raises(NoteError, match="anybody can sign"):
        VerifierKey("villa", neutral)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 4096])
def test_a_signature_of_another_length_is_false(length):
    assert not signer().verifier.verifies(b"\1" * length, b"text\n")


# ---- notes: what is opened ----

SIGNER = signer()
OTHER = signer("gateway/villa", 2)
SIGNED = SIGNER.sign("The door was opened.\n")


def line(of, text="The door was opened.\n"):
    """A signer's line under a text."""
    return of.sign(text).rpartition("\n\n")[2]


def test_the_text_of_a_signed_note_is_returned():
    assert open_note(SIGNED, [SIGNER.verifier]) == "The door was opened.\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n", id="one empty line"),
        pytest.param("\n\n\n", id="empty lines alone"),
        pytest.param("a\n\n", id="an empty line at its end"),
        pytest.param("\na\n", id="an empty line at its beginning"),
        pytest.param("a\n\nb\n", id="an empty line in it"),
        pytest.param("Tür — geöffnet 🚪\n", id="letters outside ASCII"),
        pytest.param(SIGNED, id="a note in a note"),
        pytest.param(f"a\n\n{PETER_LINE}", id="what looks like a signature"),
    ],
)
def test_any_text_is_opened_as_it_was_signed(text):
    assert open_note(SIGNER.sign(text), [SIGNER.verifier]) == text


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n"), max_size=200))
def test_every_text_is_opened_as_it_was_signed(text):
    assert open_note(SIGNER.sign(f"{text}\n"), [SIGNER.verifier]) == f"{text}\n"


BOTH = f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}"


@pytest.mark.parametrize("keys", [(PETER,), (ENOCH,), (PETER, ENOCH), (SPEC, PETER), (PETER, PETER)])
@pytest.mark.parametrize("lines", [PETER_LINE + ENOCH_LINE, ENOCH_LINE + PETER_LINE, (PETER_LINE + ENOCH_LINE) * 2])
def test_one_known_signer_is_enough_and_unknown_ones_are_ignored(keys, lines):
    assert open_note(f"{TEXT}\n{lines}", known(*keys)) == TEXT


@pytest.mark.parametrize("keys", [(PETER,), (ENOCH,), (ENOCH, PETER), (SPEC, PETER)])
def test_who_signed_is_told_from_who_is_merely_known(keys):
    text, signed_by = open_signed(f"{TEXT}\n{(PETER_LINE + ENOCH_LINE) * 2}", known(*keys))
    assert text == TEXT
    assert set(signed_by) == set(known(*keys)) - set(known(SPEC))
    assert len(signed_by) == len(set(signed_by))


@pytest.mark.parametrize("keys", [(), (SPEC,), (SPEC, GO_SUM)])
def test_a_note_that_no_known_key_signed_is_refused(keys):
    with pytest.raises(NoteError, match="no known key has signed"):
        open_note(BOTH, known(*keys))


def test_a_note_with_one_false_signature_of_a_known_key_is_refused_though_another_is_good():
    forged = PETER_LINE.replace("x08go/ZJ", "x08go/ZK")
    for lines in (ENOCH_LINE + forged, forged + ENOCH_LINE, PETER_LINE + forged, forged + PETER_LINE):
        with pytest.raises(NoteError, match=r"the signature of PeterNeumann\+c74f20a3 is false"):
            open_note(f"{TEXT}\n{lines}", known(PETER, ENOCH))


def test_a_false_signature_of_an_unknown_key_is_ignored():
    forged = PETER_LINE.replace("x08go/ZJ", "x08go/ZK")
    assert open_note(f"{TEXT}\n{forged}{ENOCH_LINE}", known(ENOCH)) == TEXT


def test_a_key_that_shares_a_known_ones_name_or_id_only_is_unknown():
    """c2sp.org/signed-note: they "MUST ignore signatures from unknown keys, even if they share a name or ID"."""
    namesake = signer("PeterNeumann", 5)
    assert open_note(f"{TEXT}\n{line(namesake, TEXT)}{PETER_LINE}", known(PETER)) == TEXT
    with pytest.raises(NoteError, match="no known key has signed"):
        open_note(namesake.sign(TEXT), known(PETER))
    same_id = PETER_LINE.replace("PeterNeumann", "PaulNeumann")
    assert open_note(f"{TEXT}\n{same_id}{ENOCH_LINE}", known(PETER, ENOCH)) == TEXT
    with pytest.raises(NoteError, match="no known key has signed"):
        open_note(f"{TEXT}\n{same_id}", known(PETER))


def test_two_known_keys_with_the_same_name_and_id_are_told_apart_by_their_signatures():
    """An id has 32 bits; these two keys were found within a second."""
    one, two, third = signer(seed=3709), signer(seed=37011), signer(seed=4)
    assert one.verifier.key_id == two.verifier.key_id
    assert one.verifier != two.verifier
    for of in (one, two):
        assert open_signed(of.sign("a\n"), [one.verifier, two.verifier]) == ("a\n", (of.verifier,))
    with pytest.raises(NoteError, match="is false"):
        open_note(two.sign("a\n"), [one.verifier, third.verifier])


def test_a_signature_is_worth_nothing_under_another_text():
    for text in ("The door was closed.\n", "The door was opened.\n\n", "\nThe door was opened.\n"):
        with pytest.raises(NoteError, match="is false"):
            open_note(f"{text}\n{line(SIGNER)}", [SIGNER.verifier])


# ---- notes: what is refused ----


def test_a_note_with_one_changed_bit_is_refused():
    raw = SIGNED.encode()
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            try:
                note = changed.decode()
            except UnicodeDecodeError:
                continue
            with pytest.raises(NoteError):
                open_note(note, [SIGNER.verifier])


@given(st.data())
def test_a_note_with_characters_lost_put_in_or_changed_is_refused(data):
    start = data.draw(st.integers(0, len(SIGNED)), "start")
    end = data.draw(st.integers(start, min(start + 3, len(SIGNED))), "end")
    put_in = data.draw(st.text(st.sampled_from("\n\r— +=A🚪") | st.characters(), max_size=3), "put in")
    changed = SIGNED[:start] + put_in + SIGNED[end:]
    if changed != SIGNED:
        with pytest.raises(NoteError):
            open_note(changed, [SIGNER.verifier])


def test_another_signers_line_cannot_be_used_to_change_the_text():
    note = f"{SIGNED}{line(OTHER)}"
    raw = note.encode()
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        try:
            text = open_note(changed.decode(), [SIGNER.verifier])
        except UnicodeDecodeError, NoteError:
            continue
        assert text == "The door was opened.\n"
        assert position >= len(SIGNED.encode()), "what the known key has signed, or its line, changed"


@pytest.mark.parametrize(
    "note, says",
    [
        pytest.param("", "not a signed note", id="nothing"),
        pytest.param("\n", "not a signed note", id="a newline"),
        pytest.param("\n\n", "not a signed note", id="an empty text without signatures"),
        pytest.param(TEXT, "not a signed note", id="a text"),
        pytest.param(f"{TEXT}\n", "not a signed note", id="no signature"),
        pytest.param(f"{TEXT}{PETER_LINE}", "not a signed note", id="no empty line"),
        pytest.param(f"{TEXT}\n{PETER_LINE[:-1]}", "not a signed note", id="no newline at the end"),
        pytest.param(f"{TEXT}\n{PETER_LINE}\n", "not a signed note", id="an empty line at the end"),
        pytest.param(f"\n{PETER_LINE}", "not a signed note", id="no text"),
        pytest.param(f"{TEXT}\n{PETER_LINE}Unexpected line.\n", "not a signature", id="another line"),
        pytest.param(f"{TEXT}\n—{PETER_LINE[2:]}", "not a signature", id="no space behind the dash"),
        pytest.param(f"{TEXT}\n-{PETER_LINE[1:]}", "not a signature", id="a hyphen for the dash"),
        pytest.param(f"{TEXT}\n{PETER_LINE[2:]}", "not a signature", id="no dash"),
        pytest.param(f"{TEXT}\n {PETER_LINE}", "not a signature", id="a space before the dash"),
        pytest.param(f"{TEXT}\n— {PETER_LINE}", "not a signature", id="two dashes"),
        pytest.param(f"{TEXT}\n{PETER_LINE[:-1]} \n", "not a signature", id="a space at the end"),
        pytest.param(f"{TEXT}\n— Peter Neumann x08goAAA\n", "not a signature", id="a space in the name"),
        pytest.param(f"{TEXT}\n— Peter\u00a0Neumann x08goAAA\n", "not a signature", id="a no-break space in the name"),
        pytest.param(f"{TEXT}\n— Peter+Neumann x08goAAA\n", "not a signature", id="a plus in the name"),
        pytest.param(f"{TEXT}\n—  x08goAAA\n", "not a signature", id="no name"),
        pytest.param(f"{TEXT}\n— PeterNeumann\n", "not a signature", id="no signature after the name"),
        pytest.param(f"{TEXT}\n— PeterNeumann \n", "not a signature", id="an empty signature"),
        pytest.param(f"{TEXT}\n— PeterNeumann x08gow==\n", "not a signature", id="an id alone"),
        pytest.param(f"{TEXT}\n— PeterNeumann x08go*AA\n", "not base64", id="not base64"),
        pytest.param(f"{TEXT}\n{PETER_LINE.replace('/', '_')}", "not base64", id="the other alphabet"),
        pytest.param(f"{TEXT}\n{PETER_LINE.replace('=', '')}", "not base64", id="no padding"),
        pytest.param(f"{TEXT}\n{PETER_LINE.replace('AM=', 'AN=')}", "one spelling", id="a spare bit set"),
        pytest.param(f"\x01{TEXT}\n{PETER_LINE}", "control character", id="a control character"),
        pytest.param(f"{TEXT}\n{PETER_LINE}".replace("\n", "\r\n"), "control character", id="Windows line ends"),
        pytest.param(f"\ud800{TEXT}\n{PETER_LINE}", "not Unicode", id="a lone surrogate"),
    ],
)
def test_a_malformed_note_is_refused_and_the_message_says_why(note, says):
    with pytest.raises(NoteError, match=says):
        open_note(note, known(PETER))


@pytest.mark.parametrize("character", [chr(code) for code in range(32) if chr(code) != "\n"], ids=ascii)
def test_no_control_character_but_the_newline_gets_into_a_note(character):
    for note in (SIGNED.replace(" ", character, 1), f"{SIGNED}{character}", f"{character}{SIGNED}"):
        with pytest.raises(NoteError, match="control character"):
            open_note(note, [SIGNER.verifier])
    with pytest.raises(NoteError, match="control character"):
        SIGNER.sign(f"The door{character}was opened.\n")


def test_a_spare_bit_in_an_unknown_signers_line_is_refused_too():
    unknown = PETER_LINE.replace("AM=", "AN=")
    with pytest.raises(NoteError, match="one spelling"):
        open_note(f"{TEXT}\n{unknown}{ENOCH_LINE}", known(ENOCH))


def test_sixteen_signatures_are_looked_at_and_no_more():
    lines = [line(signer("witness", seed)) for seed in range(10, 25)]
    sixteen = f"The door was opened.\n\n{''.join(lines)}{line(SIGNER)}"
    assert open_note(sixteen, [SIGNER.verifier]) == "The door was opened.\n"
    with pytest.raises(NoteError, match="17 signatures"):
        open_note(sixteen + line(OTHER), [SIGNER.verifier])


@pytest.mark.parametrize("letter", ["a", "ä", "🚪"])
def test_a_note_has_at_most_64_kib_whatever_its_letters(letter):
    room = MAX_BYTES - len(SIGNER.sign("\n").encode())
    longest = letter * (room // len(letter.encode())) + "a" * (room % len(letter.encode())) + "\n"
    note = SIGNER.sign(longest)
    assert len(note.encode()) == MAX_BYTES == 64 * 1024
    assert open_note(note, [SIGNER.verifier]) == longest
    with pytest.raises(NoteError, match="longer than"):
        open_note("a" + note, [SIGNER.verifier])
    with pytest.raises(NoteError, match="longer than"):
        SIGNER.sign("a" + longest)


@pytest.mark.parametrize(
    "text, says",
    [
        pytest.param("", "end with a newline", id="nothing"),
        pytest.param("abc", "end with a newline", id="no newline"),
        pytest.param("a\r\n", "control character", id="a control character"),
        pytest.param("a\ud800\n", "not Unicode", id="a lone surrogate"),
        pytest.param("a" * MAX_BYTES + "\n", "longer than", id="too long"),
    ],
)
def test_a_text_that_could_not_be_opened_again_is_not_signed(text, says):
    with pytest.raises(NoteError, match=says):
        SIGNER.sign(text)


PIECES = st.lists(st.sampled_from(["\n", "— ", " ", "a", "+", "AAAAAAAA", "=", SIGNED, line(SIGNER)]) | st.text()).map(
    "".join
)


@given(PIECES)
def test_whatever_is_read_is_opened_or_refused(text):
    try:
        opened = open_note(text, [SIGNER.verifier])
    except NoteError:
        return
    assert text.startswith(f"{opened}\n— ")
    assert opened.endswith("\n")


# ---- checkpoints ----

ROOT = bytes(range(32))
ROOT_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


NO_SIZES = ["", "07", "00", "-7", "+7", " 7", "7 ", "7.0", "1e3", "0x7", "1_000", "٣", "1٣", "9" * 20, "9" * 5000]


def test_a_checkpoint_is_three_lines():
    assert Checkpoint("vestibule/villa", 7, ROOT).text == f"vestibule/villa\n7\n{ROOT_TEXT}\n"


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=50),
    st.integers(0, MAX_SIZE),
    st.binary(min_size=32, max_size=32),
)
def test_every_checkpoint_is_read_as_it_was_signed(origin, size, root):
    checkpoint = Checkpoint(origin, size, root)
    assert Checkpoint.parse(checkpoint.text) == checkpoint
    assert open_note(SIGNER.sign(checkpoint.text), [SIGNER.verifier]) == checkpoint.text


@given(st.lists(st.sampled_from(["\n", "0", "1", "villa", ROOT_TEXT, "=", " "]) | st.text(max_size=5)).map("".join))
def test_no_text_is_read_as_a_checkpoint_that_would_be_written_otherwise(text):
    try:
        checkpoint = Checkpoint.parse(text)
    except NoteError:
        return
    assert checkpoint.text == text


@given(st.data())
def test_a_checkpoint_with_one_changed_character_is_another_or_none(data):
    position = data.draw(st.integers(0, len(CHECKPOINT) - 1), "position")
    character = data.draw(st.sampled_from("\n \t0123456789ABCDQgw+-_/=٣") | st.characters(), "character")
    changed = CHECKPOINT[:position] + character + CHECKPOINT[position + 1 :]
    try:
        checkpoint = Checkpoint.parse(changed)
    except NoteError:
        return
    assert checkpoint.text == changed


@pytest.mark.parametrize(
    "text, says",
    [
        pytest.param("", "three lines", id="nothing"),
        pytest.param("villa\n", "three lines", id="one line"),
        pytest.param("villa\n7\n", "three lines", id="two lines"),
        pytest.param(f"villa\n7\n{ROOT_TEXT}", "three lines", id="no newline at the end"),
        pytest.param(f"villa\n7\n{ROOT_TEXT}\nmore\n", "extension lines", id="an extension line"),
        pytest.param(f"villa\n7\n{ROOT_TEXT}\n\n", "extension lines", id="an empty line at the end"),
        pytest.param(f"villa\n7\n{ROOT_TEXT}\nmore", "extension lines", id="more without a newline"),
        pytest.param(f"\n7\n{ROOT_TEXT}\n", "origin", id="no origin"),
        pytest.param(f"vil\rla\n7\n{ROOT_TEXT}\n", "control character", id="a control character"),
        pytest.param(f"vil\ud800la\n7\n{ROOT_TEXT}\n", "not Unicode", id="a lone surrogate"),
        pytest.param(f"{'a' * MAX_BYTES}a\n7\n{ROOT_TEXT}\n", "longer than", id="an endless origin"),
        *(pytest.param(f"villa\n{size}\n{ROOT_TEXT}\n", "in decimal", id=f"size {size[:9]!r}") for size in NO_SIZES),
        pytest.param(f"villa\n{MAX_SIZE + 1}\n{ROOT_TEXT}\n", "cannot have", id="a size past 63 bits"),
        pytest.param("villa\n7\n\n", "32 bytes, not 0", id="no root"),
        pytest.param(f"villa\n7\n{base64.b64encode(ROOT[:31]).decode()}\n", "32 bytes, not 31", id="a root too short"),
        pytest.param(f"villa\n7\n{base64.b64encode(ROOT + b'x').decode()}\n", "32 bytes, not 33", id="a root too long"),
        pytest.param(f"villa\n7\n{ROOT_TEXT[:-1]}\n", "not base64", id="no padding"),
        pytest.param(f"villa\n7\n{ROOT_TEXT.replace('8=', '9=')}\n", "one spelling", id="a spare bit set"),
        pytest.param(f"villa\n7\n {ROOT_TEXT}\n", "not base64", id="a space before the root"),
        pytest.param(f"villa\n7\n{ROOT.hex()}\n", "32 bytes, not 48", id="hexadecimal"),
    ],
)
def test_a_malformed_checkpoint_is_refused_and_the_message_says_why(text, says):
    with pytest.raises(NoteError, match=says):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "origin, size, root",
    [
        pytest.param("", 7, ROOT, id="no origin"),
        pytest.param("vil\nla", 7, ROOT, id="an origin of two lines"),
        pytest.param("vil\tla", 7, ROOT, id="a control character"),
        pytest.param("villa", -1, ROOT, id="fewer than no leaves"),
        pytest.param("villa", MAX_SIZE + 1, ROOT, id="more leaves than can be counted"),
        pytest.param("villa", 7, ROOT[:-1], id="a root too short"),
        pytest.param("villa", 7, ROOT + b"\0", id="a root too long"),
    ],
)
def test_a_checkpoint_that_could_not_be_read_again_is_not_made(origin, size, root):
    with pytest.raises(NoteError):
        Checkpoint(origin, size, root)


def test_the_poem_of_the_specification_has_the_form_of_a_note():
    """Its key is not published: it is unknown here, and nothing else is wrong with it."""
    with pytest.raises(NoteError, match="no known key has signed"):
        open_note(POEM, known(SPEC))
