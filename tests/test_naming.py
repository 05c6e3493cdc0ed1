"""Names and labels: what Kubernetes accepts, always the same, never shared by two."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanikojobs import naming

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
IMAGE_COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")
SAMPLE_JOB_NAME = "kaniko-job-0307ea43639b4616b044d190310a26bd-0197ad6c10b973b2b854a0e652155b7e"

texts = st.text(max_size=120)
identities = st.tuples(texts, texts, st.integers(min_value=1, max_value=10_000))


def name_of(identity, *, job_name=SAMPLE_JOB_NAME):
    source, event_id, number = identity
    return naming.kubernetes_name(source=source, event_id=event_id, number=number, job_name=job_name)


def test_the_sample_job_name_is_cut_and_stays_readable():
    assert len(SAMPLE_JOB_NAME) == 76

    name = name_of(("network.notifi.kaniko-jobs", "uuid", 1))

    assert re.fullmatch(r"kaniko-job-0307ea43639b4616b044d190310a2-[0-9a-f]{16}", name)


@given(identities, texts)
def test_a_name_is_a_dns_label_that_leaves_room_for_the_pods_suffix(identity, job_name):
    name = name_of(identity, job_name=job_name)

    assert DNS_LABEL.fullmatch(name)
    assert len(f"{name}-abcde") <= 63


@given(identities, identities)
def test_names_are_equal_exactly_when_identity_and_number_are(first, second):
    assert (name_of(first) == name_of(second)) == (first == second)


@given(identities, texts, texts)
def test_the_hash_does_not_depend_on_the_job_name(identity, first, second):
    assert name_of(identity, job_name=first)[-16:] == name_of(identity, job_name=second)[-16:]


def test_parts_that_join_to_the_same_text_have_different_names():
    assert name_of(("a", "bc", 1)) != name_of(("ab", "c", 1))
    assert name_of(("a", "b", 11)) != name_of(("a", "b1", 1))


@pytest.mark.parametrize("job_name", ["", "---", "Ünïcödé ☃", "\n", "$(rm -rf /)", "-" * 500])
def test_a_job_name_without_usable_letters_still_gives_a_name(job_name):
    assert DNS_LABEL.fullmatch(name_of(("s", "e", 1), job_name=job_name))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "uuid",
        "0307ea43639b4616b044d190310a26bd",
        "0197ad6c-10b9-73b2-b854-a0e652155b7e",
        "A.b_c",
        "x" * 63,
    ],
)
def test_a_text_that_fits_is_its_own_label_value(text):
    assert naming.label_value(text) == text


@given(texts)
def test_every_label_value_is_valid(text):
    value = naming.label_value(text)

    assert LABEL_VALUE.fullmatch(value)
    assert len(value) <= 63


@given(texts, texts)
def test_different_texts_have_different_label_values(first, second):
    assert (naming.label_value(first) == naming.label_value(second)) == (first == second)


@given(texts)
def test_nobody_can_choose_an_id_that_reads_like_the_cut_id_of_another(text):
    value = naming.label_value(text)

    if value != text:
        assert naming.label_value(value) != value


@given(texts, texts)
def test_image_components_are_valid_and_keep_different_texts_apart(first, second):
    components = [naming.image_component(text) for text in (first, second)]

    for text, component in zip((first, second), components, strict=True):
        assert (IMAGE_COMPONENT.fullmatch(component) and len(component) <= 63) or text == component == ""
    assert (components[0] == components[1]) == (first == second)


def test_tenants_whose_ids_differ_in_case_only_do_not_share_an_image():
    assert naming.image_component("Tenant") != naming.image_component("tenant")


def test_labels_find_a_job_by_everything_that_identifies_it():
    labels = naming.labels(event_id="a b", third_party_id="tp", parser_id="p", number=2)

    assert labels == {
        "app.kubernetes.io/name": "kaniko",
        "app.kubernetes.io/managed-by": "kanikojobs",
        "kanikojobs.notifi.network/event-id": naming.label_value("a b"),
        "kanikojobs.notifi.network/third-party-id": "tp",
        "kanikojobs.notifi.network/parser-id": "p",
        "kanikojobs.notifi.network/number": "2",
    }
