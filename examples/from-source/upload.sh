#!/bin/sh
# Has the image of an object built from a folder of this machine, by what every client does for spec.build.upload:
#   upload.sh KIND NAME FOLDER [NAMESPACE]
# The object is there already and names no git. Needs kubectl, tar, openssl and curl; $CURL_OPTIONS goes to curl.
set -euf
kind=$1 name=$2 folder=$3 namespace=${4:-default}
kubectl=${KUBECTL:-kubectl}

archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
# The same files are the same bytes, so that what was sent once need not be sent again.
tar --directory="$folder" --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner . | gzip --no-name > "$archive"
md5=$(openssl md5 -r "$archive" | cut -d' ' -f1)
sha256=$(openssl sha256 -r "$archive" | cut -d' ' -f1)
request=$(openssl rand -hex 16)

upload=$(printf '{"md5Checksum":"%s","sha256Checksum":"%s","sizeBytes":%d,"requestID":"%s"}' "$md5" "$sha256" "$(wc -c < "$archive")" "$request")
"$kubectl" --namespace "$namespace" patch "$kind" "$name" --type=merge \
    --patch "{\"spec\":{\"image\":\"\",\"build\":{\"git\":null,\"upload\":$upload}}}" >&2

says() {
    "$kubectl" --namespace "$namespace" get "$kind" "$name" --output "jsonpath={.status.buildUpload.$1}"
}
waited=0
until [ "$(says storedMD5Checksum)" = "$md5" ]; do
    if [ "$(says requestID)" = "$request" ] && url=$(says signedURL) && [ -n "$url" ]; then
        # shellcheck disable=SC2086
        curl --connect-timeout 30 --fail-with-body --silent --show-error ${CURL_OPTIONS:-} --request PUT --upload-file "$archive" \
            --header "Content-Type: application/octet-stream" \
            --header "Content-MD5: $(openssl md5 -binary "$archive" | openssl base64)" "$url"
        # An operator that was not told looks again.
        "$kubectl" --namespace "$namespace" annotate "$kind" "$name" --overwrite "upload-timestamp=$(date -u +%Y-%m-%dT%H:%M:%SZ)" >&2
        exit
    fi
    [ "$waited" -lt 60 ] || { echo "upload.sh: the operator gives no URL; kubectl describe $kind $name says why" >&2; exit 1; }
    waited=$((waited + 1))
    sleep 1
done
echo "upload.sh: these files were sent before" >&2
