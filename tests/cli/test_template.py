"""``--format`` does what Go's templates do; each expected text came out of the docker client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowage.cli.template import Template
from stowage.errors import InvalidArgument

VALUE = {
    "Os": "linux",
    "Version": "28.2.2",
    "Context": "default",
    "State": {"Running": True, "Pid": 7, "Error": ""},
    "Ports": [{"HostPort": "80"}, {"HostPort": "81"}],
    "Labels": {"b": "2", "a": "1"},
    "Nothing": None,
    "Label": lambda name: {"com.x": "yes"}.get(name, ""),
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Os}} {{.State.Pid}} {{.State.Running}}", "linux 7 true"),
        ('{{.Version | printf "%q"}}', '"28.2.2"'),
        ("{{json .State}}", '{"Running":true,"Pid":7,"Error":""}'),
        ("{{len .Version}} {{len .Ports}}", "6 2"),
        ('{{range $i, $c := split "a,b,c" ","}}{{$i}}={{$c}};{{end}}', "0=a;1=b;2=c;"),
        ("{{range .Ports}}{{.HostPort}} {{end}}", "80 81 "),
        ("{{range $k, $v := .Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{with .State}}{{.Pid}}{{else}}x{{end}}", "7"),
        ("{{with .Nothing}}y{{else}}x{{end}}", "x"),
        ('{{if eq .Os "windows" "linux"}}yes{{else if true}}no{{end}}', "yes"),
        ('{{if eq .Os "x"}}yes{{else if false}}no{{else}}z{{end}}', "z"),
        ('{{index (split "a b" " ") 1}}', "b"),
        ('{{join (split "ab" "") "-"}}', "a-b"),
        ('{{index .Labels "a"}} {{(index .Ports 0).HostPort}}', "1 80"),
        ('{{index .Labels "nosuch"}}|', "|"),
        ("{{.Labels}} {{.Ports}}", "map[a:1 b:2] [map[HostPort:80] map[HostPort:81]]"),
        ("{{.Nothing}}", "<no value>"),
        ('{{.Label "com.x"}}', "yes"),
        ("{{1.5}} {{1e3}} {{0x10}}", "1.5 1000 16"),
        ('  {{- "x" -}}   y {{/* c */}}z', "xy z"),
        ('{{html "<a>"}} {{urlquery "a b"}}', "&lt;a&gt; a+b"),
        ('{{upper "x"}}{{title "abc"}}{{pad "x" 2 3}}|{{truncate "abcdef" 3}}', "XAbc  x   |abc"),
        ('{{join (split "a b" " ") "-"}}', "a-b"),
        ("{{$x := 5}}{{$x}}{{$x = 6}}{{$x}}", "56"),
        ('{{lt 1 2}} {{and 1 0}} {{or "" "x"}} {{not true}}', "true 0 x false"),
        ('{{slice "abcd" 1 3}}', "bc"),
        (
            '{{printf "%d %s %v %x %t %%" 5 "a" true 255 false}}',
            "5 a true ff false %",
        ),
        (
            '{{printf "%s" 5}} {{printf "%d" "a"}} {{printf "%d"}} {{printf "a" 1}}',
            "%!s(int=5) %!d(string=a) %!d(MISSING) a%!(EXTRA int=1)",
        ),
        (
            '{{printf "%05d|%+d|%-4d|%4d|%.2f" 42 7 3 -4 1.5}}',
            "00042|+7|3   |  -4|1.50",
        ),
        ("{{'a'}}", "97"),
        ('{{print 1 2 "a" 3 true}}', "1 2a3 true"),
        ('{{range split "a b" " "}}{{.}}{{break}}{{end}}', "a"),
        ('{{range split "a b" " "}}{{if eq . "a"}}{{continue}}{{end}}{{.}}{{end}}', "b"),
        ("{{with $v := .Os}}{{$v}}{{.}}{{$.Version}}{{end}}", "linuxlinux28.2.2"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{.Context | upper | lower}}", "default"),
        ("{{lower `RAW\\n`}}", "raw\\n"),
        ('{{len "é"}}', "2"),
        ("no action", "no action"),
    ],
)
def test_templates_render_as_gos_do(template: str, text: str) -> None:
    """Go's own functions, Docker's, variables, branches, trimming."""
    assert Template(template).render(VALUE) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{if}}x{{end}}", "missing value for if"),
        ("{{if true}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{.Os", "unclosed action"),
        ("{{$y}}", 'undefined variable "$y"'),
        ('{{"unterminated}}', "unterminated quoted string"),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{1 | 2}}", "non executable command in pipeline stage 2"),
        ("{{.Version.}}", "unexpected <.> in operand"),
        ("{{nosuch}}", 'function "nosuch" not defined'),
        ('{{define "x"}}{{end}}', "not supported in --format"),
    ],
)
def test_a_wrong_template_is_refused_in_gos_words(template: str, message: str) -> None:
    """Before anything is rendered."""
    with pytest.raises(InvalidArgument, match="template parsing error") as caught:
        Template(template)

    assert message in caught.value.brief


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Nosuch}}", 'map has no entry for key "Nosuch"'),
        ("{{.Os.Foo}}", "can't evaluate field Foo"),
        ("{{index .Ports 5}}", "index out of range: 5"),
        ('{{eq 1 "a"}}', "incompatible types"),
        ("{{len 5}}", "len of 5"),
        ("{{join .Ports}}", "wrong number or kind of arguments for join"),
        ('{{.Os "x"}}', "not a method"),
        ("{{range .Os}}{{end}}", "range can't iterate over linux"),
    ],
)
def test_a_template_that_does_not_fit_says_where(template: str, message: str) -> None:
    """A typed error, never a traceback."""
    with pytest.raises(InvalidArgument, match="template execution error") as caught:
        Template(template).render(VALUE)

    assert message in caught.value.brief


PIECES = ["{{", "}}", ".Os", "$x", ":=", "|", "(", ")", '"a"', " ", "if", "end", "range", "json",
          "-", "else", "1", "index", ",", ".", "`", "{{/*", "*/}}"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_template_ends_in_a_traceback(template: str) -> None:
    """Text, or one typed error."""
    try:
        assert isinstance(Template(template).render(VALUE), str)
    except InvalidArgument:
        pass


def test_a_template_nested_without_end_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        Template("{{if 1}}" * 3000)


def test_a_width_that_would_take_all_memory_is_refused_as_go_does() -> None:
    assert Template('{{printf "%999999999d" 3}}').render(VALUE) == "%!(BADWIDTH)"
    assert Template('{{printf "%.999999999f" 1.5}}').render(VALUE) == "%!(BADPREC)"
