// Command go is the dashboard's backend in Go.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	jwtSecret = os.Getenv("JWT_SECRET")
	apiKey    = os.Getenv("API_KEY")
	apiURL    = cmp.Or(os.Getenv("API_URL"), "http://localhost:3001")
	nodeURL   = cmp.Or(os.Getenv("NODE_URL"), "http://localhost:3000")
	port      = cmp.Or(os.Getenv("PORT"), "8000")
)

// token returns a token for a user of the page: it joins the room and permits to
// read its history.
func token() (string, error) {
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": "viewer",
		"exp": time.Now().Add(5 * time.Minute).Unix(),
		"rejoin": map[string]any{
			"rooms": []string{"dashboard"},
			"can":   map[string]any{"history": []string{"dashboard"}},
		},
	}).SignedString([]byte(jwtSecret))
}

type figures struct {
	N        int `json:"n"`
	Visitors int `json:"visitors"`
	Orders   int `json:"orders"`
}

// emit sends one event to the room. Repeated calls with the same key send it
// once.
func emit(ctx context.Context, f figures, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := json.Marshal(map[string]any{"rooms": []string{"dashboard"}, "event": "figures", "args": []any{f}})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, apiURL+"/api/v1/emit", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	var problem struct{ Detail string }
	if response.StatusCode == http.StatusOK {
		return nil
	} else if err := json.NewDecoder(response.Body).Decode(&problem); err != nil {
		return err
	}
	return fmt.Errorf("%s: %s", response.Status, problem.Detail)
}

func main() {
	if jwtSecret == "" || apiKey == "" {
		log.Fatal("JWT_SECRET and API_KEY must be set")
	}
	page, err := os.ReadFile("dashboard/index.html")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page)
	})
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, _ *http.Request) {
		signed, err := token()
		if err != nil {
			http.Error(w, "no token", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(map[string]string{"url": nodeURL, "token": signed})
	})
	site := &http.Server{Addr: "127.0.0.1:" + port, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { log.Fatal(site.ListenAndServe()) }() // ends with the program
	log.Printf("open http://localhost:%s/", port)

	begun, orders := time.Now().UnixNano(), 0
	for n := 1; ; n++ {
		orders += rand.IntN(4)
		visitors := int(50 + 30*math.Sin(float64(n)/10) + 10*rand.Float64())
		if err := emit(context.Background(), figures{n, visitors, orders}, fmt.Sprintf("figures-%d-%d", begun, n)); err != nil {
			log.Printf("number %d: %v", n, err)
		}
		time.Sleep(time.Second)
	}
}
