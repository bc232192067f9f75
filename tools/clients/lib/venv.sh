# `venv REQUIREMENTS`: a virtual environment in $CACHE/venv with exactly what the file pins, made again when the file changes.
venv() {
  local sum
  sum=$(sha256sum < "$1")
  [ "$(cat "$CACHE/venv.sha256" 2>/dev/null)" = "$sum" ] && return
  rm -rf "$CACHE/venv" "$CACHE/venv.sha256"
  python3 -m venv "$CACHE/venv"
  "$CACHE/venv/bin/pip" install -q --no-input --disable-pip-version-check -r "$1"
  echo "$sum" > "$CACHE/venv.sha256"
}
