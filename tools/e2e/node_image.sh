#!/usr/bin/env bash
# Prints the node image to use: our own where it is built already, the published one where a registry answers, and
# else our own, built now.
. "$(dirname "$0")/env.sh"
own=$(bash -c '. images/kind-node/env.sh; echo "$NODE_IMAGE"')
if docker image inspect "$own" > /dev/null 2>&1; then echo "$own"; exit; fi
if docker image inspect "$PUBLISHED_NODE" > /dev/null 2>&1; then echo "$PUBLISHED_NODE"; exit; fi
if timeout 15 docker manifest inspect "$PUBLISHED_NODE" > /dev/null 2>&1 && timeout 600 docker pull -q "$PUBLISHED_NODE" > /dev/null; then
  echo "$PUBLISHED_NODE"; exit
fi
images/kind-node/build.sh
